"""The command line: --config FILE [key=value ...], schema, report, diff or sweep."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer import signals

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
COMMANDS = {  # loaded when asked for
    "diff": "trainer.difference",
    "report": "trainer.report",
    "sweep": "trainer.sweep",
}

NEEDED = {"google_crc32c", "numba", "numpy", "pydantic", "rich", "safetensors", "tensorboard",
          "torch", "yaml"}  # fmt: skip
INSTALL = "use scripts/train, or .venv/bin/python -m trainer, or install it: pip install -e ."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, by default that of this process; the result is the exit status."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(f"{error.name} is missing in {sys.executable}: {INSTALL}", file=sys.stderr)
        return USAGE


def _run(arguments: Sequence[str] | None) -> int:
    own = arguments is None
    if arguments is None:
        signals.outside_training()
        arguments = sys.argv[1:]
    if not {"", os.getcwd()} & set(sys.path):  # `python -m` looks there for the user's own modules
        sys.path.insert(0, os.getcwd())
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(COMMANDS[arguments[0]])
        with _as_far_as_it_is_read():
            return int(command.main(arguments[1:]))
        return DONE
    parser = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Train the model that a YAML file describes and watch its gradients.",
        epilog="python -m trainer schema prints the JSON Schema of a configuration; "
        "report RUN says what is wrong with a run; diff --help and sweep --help tell how runs "
        "are compared.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the configuration, a YAML file"
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where to write; runs/<name>/<time>-<id>/ if left out",
    )
    parser.add_argument(
        "--resume",
        default="never",
        metavar="auto|never|PATH",
        help="go on from a checkpoint: of the newest run of this name, if there is one (auto), or "
        "of the run in a folder; `never`, the default, starts a new run",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the configuration with all defaults and end",
    )
    parser.add_argument(
        "--check", action="store_true", help="build everything, run no step and end"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="section.key=value",
        help="values that replace those of the file",
    )
    options = (each.partition("=")[0] for each in arguments if each.startswith("--"))
    dotted = next((option for option in options if "." in option), None)
    if dotted is not None:
        parser.error(f"{dotted}: write {dotted[2:]}=value: what replaces a value has no dashes")
    given = parser.parse_intermixed_args(arguments)
    from trainer.config import ConfigError

    if given.overrides == ["schema"] and given.config is None:
        from trainer.config.description import json_schema

        with _as_far_as_it_is_read():
            print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return DONE
    if given.config is None:
        parser.error("--config FILE is missing, for example --config configs/linear.yaml")
    try:
        return train(given)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return USAGE
    except Exception:
        from trainer.data import workers

        lost = workers.lost()
        if lost is None:
            raise
        print(f"{lost}; go on with --resume auto", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        if own:
            signals.end_at_once(INTERRUPTED)
        return INTERRUPTED


def train(given: argparse.Namespace) -> int:
    """Loads, builds and trains what the arguments name."""
    from trainer import experiment
    from trainer.config import dump, load, resolved

    config, document = load(given.config, given.overrides, [experiment.check])
    if given.print_config:
        with _as_far_as_it_is_read():
            print(dump(resolved(config)), end="")
        return DONE
    if given.check:
        built = experiment.build(config, document)
        parameters = sum(p.numel() for p in built.model.parameters())
        with _as_far_as_it_is_read():
            print(f"{given.config}: valid; {parameters:,} parameters, {len(built.rows):,} rows")
        return DONE

    # Before the seed is set: some of what this imports draws a random number when it is loaded.
    from trainer import session

    built = experiment.build(config, document)
    return session.run(built, given.config, given.run_dir, given.overrides, given.resume)


@contextmanager
def _as_far_as_it_is_read() -> Iterator[None]:
    """Has what prints to stdout end in silence where no one reads on: `report RUN | head`."""
    try:
        yield
        print(end="", flush=True)  # to nobody, where there is no stdout
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
