"""Through the command line: status 2, one message and nothing left behind for each mistake."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from trainer import experiment, losses
from trainer.__main__ import NEEDED, main
from trainer.config import dump, load, resolved
from trainer.config.description import json_schema
from trainer.config.source import Document

CONFIGS = Path(__file__).parent.parent / "configs"
LINEAR = CONFIGS / "linear.yaml"


class Ended(NamedTuple):
    status: int | str | None
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(CONFIGS.parent))])

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        status: int | str | None
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as end:  # argparse
            status = end.code
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


def refused(ended: Ended) -> str:
    """The message of a run that ended by the user's mistake and left nothing behind."""
    assert ended.status == 2
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert not Path("runs").exists()
    return ended.err.rstrip("\n")


def test_arguments(run: Run) -> None:
    missing = "error: --config FILE is missing, for example --config configs/linear.yaml"
    for arguments, message in [
        ([], missing),
        (["optimizer.lr=1"], missing),
        (["--config"], "error: argument --config: expected one argument"),
        (["--config", LINEAR, "--chek"], "error: unrecognized arguments: --chek"),
        (["--conf", LINEAR], "error: unrecognized arguments: --conf"),
        (
            ["--config", LINEAR, "--optimizer.lr", "1e-3"],
            "error: --optimizer.lr: write optimizer.lr=value: what replaces a value has no dashes",
        ),
    ]:
        text = refused(run(*arguments))
        assert text.startswith("usage: python -m trainer")
        assert text.endswith(f"python -m trainer: {message}")


EMPTY = ": the file is empty; see configs/linear.yaml for an example"
FILES = {
    "empty.yaml": (b"", EMPTY),
    "comments.yaml": (b"# a\n\n  # b\n", EMPTY),
    "bytes.yaml": (bytes(range(256)), ":2:118: not a text file in UTF-8 (byte 0x80)"),
    "nul.yaml": (b"name: a\0b", ":1:8: not valid YAML: the character '\\x00' is not allowed"),
    "syntax.yaml": (
        b"name: [a\n",
        ":1:9: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'",
    ),
    "words.yaml": (b"just words\n", ":1:1: expected sections (key: value), got 'just words'"),
    "list.yaml": (b"- name: a\n", ":1:1: expected sections (key: value), got a list of 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_configuration(run: Run, name: str) -> None:
    content, message = FILES[name]
    Path(name).write_bytes(content)
    assert refused(run("--config", name)).splitlines()[0] == f"{name}{message}"


def test_no_file_and_a_folder(run: Run) -> None:
    Path("some.yaml").write_text("name: x")
    assert (
        refused(run("--config", "sone.yaml"))
        == "sone.yaml: no such file; did you mean 'some.yaml'?"
    )
    assert refused(run("--config", ".")) == ".: is a folder; name a file in it"
    assert refused(run("--config", "")) == ".: is a folder; name a file in it"


def test_mistakes_of_both_sources_in_one_go(run: Run) -> None:
    Path("my.yaml").write_text(LINEAR.read_text().replace("lr: 0.1", "lr: 0"))
    place, line, caret, *overrides = refused(
        run("--config", "my.yaml", "foo", "seed=x")
    ).splitlines()
    assert place.endswith(": optimizer.lr: expected a number > 0, got 0")
    assert line[caret.index("^") :].startswith("0}")
    assert overrides == [
        "command line: foo: expected section.key=value, such as optimizer.lr=1e-2",
        "command line: seed=x: seed: expected an integer, got 'x'",
    ]


CSV_CONFIG = "data={name: csv, file: data.csv, x: [a], y: [b]}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,c\n1,2\n", "data.y[0]: no column 'b' in {}; known: a, c"),
        (
            "a,b\n1,2\n3,x\n",
            "data.file: {}:3: column 'b': expected a finite number, got 'x'; if the column holds "
            "classes, set data.classes: true",
        ),
        ("a,b\nnan,2\n", "data.file: {}:2: column 'a': expected a finite number, got 'nan'"),
        ("a,b\n1\n", "data.file: {}:2: 1 cell, but the header has 2"),
        (None, "data.file: no such file: {}"),
    ],
)
def test_data_that_does_not_fit(run: Run, content: str | None, message: str) -> None:
    if content is not None:
        Path("data.csv").write_text(content)
    file = Path("data.csv").absolute()
    expected = f"command line: {CSV_CONFIG}: {message.format(file)}"
    assert refused(run("--config", LINEAR, CSV_CONFIG)) == expected


MODULE = """
from torch import nn
import torch
limit = 3
def number(): return 3
class Small(nn.Module):
    def __init__(self, width: int, *args, scale=1.0, **rest):
        super().__init__()
        if width < 0:
            raise ValueError("width: below 0")
        self.inner = nn.Linear(1, width)
    def forward(self, x): return self.inner(x)
class Frozen(nn.Module):
    def forward(self, x): return x
def rows(count=2): return torch.zeros(count, 1), torch.zeros(2, 1)
def flat(): return torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2)
class Flat(Small):
    def forward(self, x): return self.inner(x)[:, 0]
def distance(): return lambda prediction, target: (prediction - target).abs()
def mean(): return lambda prediction, target: ((prediction - target) ** 2).mean()
class Broken(Small):
    def __init__(self): super().__init__(1)
    def forward(self, x): return {}["embedding"]
class Misfit(nn.Linear):
    def __init__(self): super().__init__(3, 1)
    def forward(self, x): return super().forward(x)
def corrupt(): raise ValueError("file 77 is corrupt")
def numbers(): return list(map(lambda text: float(text), "abc"))
"""


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model={name: 'absent:Thing'}", "model.name: cannot import 'absent'"
         " (ModuleNotFoundError: No module named 'absent')"),
        ("model={name: 'broken:Thing'}", "model.name: cannot import 'broken'"
         " (broken.py:1: ZeroDivisionError: division by zero)"),
        ("model={name: 'leaves:Thing'}", "model.name: cannot import 'leaves' (leaves.py:1:"
         " SystemExit: 0)"),
        ("model={name: 'own:Smal'}", "model.name: module 'own' has no 'Smal'; did you mean"
         " 'Small'?"),
        ("model={name: 'own:limit'}", "model.name: 'own:limit' is a int, which cannot be called"),
        ("model={name: 'own:'}", "model.name: expected package.module:Thing, got 'own:'"),
        ("model={name: 'own:number', x: 1}", "model.x: number has no such argument"),
        ("model={name: 'own:number'}", "model: it made a int, which is no torch.nn.Module"),
        ("model={name: 'own:Small'}", "model.width: missing: an argument of Small without a"
         " default"),
        ("model={name: 'own:Small', width: wide}", "model.width: expected int for this argument of"
         " Small, got 'wide'"),
        ("model={name: 'own:Small', width: -1}", "model.width: own.py:10: ValueError: below 0"),
        ("model={name: 'own:Broken'}", "model: own.py:23: KeyError: 'embedding'"),
        ("model={name: 'own:Misfit'}", "model: own.py:26: RuntimeError: mat1 and mat2 shapes cannot"
         " be multiplied (2x1 and 3x1)"),
        ("data={name: 'own:corrupt'}", "data: own.py:27: ValueError: file 77 is corrupt"),
        ("data={name: 'own:numbers'}", "data: own.py:28: ValueError: could not convert string to"
         " float: 'a'"),
        ("model={name: 'own:Small', width: 2}", "model: it gives predictions of shape (2, 2) for"
         " targets of shape (2, 1)"),
        ("model={name: 'own:Frozen'}", "model: the model has no parameter that requires a"
         " gradient"),
        ("data={name: 'own:rows', count: 3}", "data: it gives shapes (3, 1) and (2, 1); expected"
         " the same number of rows, not 0"),
        ("data={name: 'own:number'}", "data: it gives a int, expected (x, y),"
         " (x, y, weights) or a Dataset with __len__ and __getitem__"),
        ("loss={name: 'own:number'}", "loss: it made a int, which cannot be called"),
        ("loss={name: 'own:mean'}", "loss: 2 samples give shape (); expected one value per sample"
         " (reduction='none' inside; `loss.reduction` does the rest)"),
        ("optimizer={name: 'own:number', lr: 1}", "optimizer.lr: number has no such argument"),
    ],
)  # fmt: skip
def test_things_of_the_users_own(run: Run, override: str, message: str) -> None:
    Path("own.py").write_text(MODULE)
    Path("broken.py").write_text("1 / 0")
    Path("leaves.py").write_text("raise SystemExit(0)")
    sys.modules.pop("own", None)
    assert refused(run("--config", LINEAR, override)) == f"command line: {override}: {message}"


def test_code_of_the_users_own_outside_the_working_folder(
    run: Run, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path_factory.mktemp("elsewhere") / "far_away.py"
    file.write_text("def rows():\n    raise AssertionError\n")
    monkeypatch.syspath_prepend(str(file.parent))
    override = "data={name: 'far_away:rows'}"
    message = f"command line: {override}: data: {file}:2: AssertionError"
    assert refused(run("--config", LINEAR, override)) == message


@pytest.mark.parametrize("loss", ["mse", "own:distance", "poisson_nll"])
def test_predictions_that_would_meet_the_targets_of_other_samples(run: Run, loss: str) -> None:
    Path("own.py").write_text(MODULE)
    sys.modules.pop("own", None)
    keys = ("model={name: 'own:Flat', width: 1}", f"loss={{name: '{loss}'}}")
    shapes = "it gives predictions of shape (2,) for targets of shape (2, 1)"
    assert refused(run("--config", LINEAR, *keys)).endswith(f": model: {shapes}")


def test_a_loss_of_its_own_may_broadcast_within_a_sample(run: Run) -> None:
    Path("own.py").write_text(MODULE)
    sys.modules.pop("own", None)
    keys = ("model={name: 'own:Small', width: 3}", "loss={name: 'own:distance'}")
    assert run("--config", LINEAR, "--check", *keys).status == 0


def test_a_loss_that_is_always_zero(run: Run) -> None:
    said = refused(run("--config", LINEAR, "loss.name=cross_entropy"))
    assert "model: it gives one output, whose cross_entropy is always 0: it would be the" in said
    tokens, name = torch.zeros(4, 1, dtype=torch.long), "CrossEntropyLoss"
    assert losses.misfit(name, torch.randn(4, 1, 9), tokens) is None, "of one position"
    assert "always 0" in str(losses.misfit(name, torch.randn(4, 5, 1), tokens.expand(4, 5)))


NETWORKS = [
    ("digits_mlp", "model.activation=rellu", "model.activation: unknown activation 'rellu'"),
    ("digits_mlp", "model.init.hidden=kaimin_normal_", "model.init.hidden: unknown init 'kaimin_n"),
    ("digits_mlp", "metrics=[acuracy]", "metrics[0]: input should be 'accuracy' or 'r2', got 'acu"),
    ("digits_mlp", "metrics=[r2]", "metrics[0]: r2 is for targets that are numbers; the data give"),
    ("digits_mlp", "schedule.name=cosinelr", "schedule.name: unknown schedule 'cosinelr'; did you"),
    ("digits_mlp", "model={name: mlp, widths: [64, 32], residual: true}",
     "model.residual: a sum needs equal widths, and widths are 64, 32; make them equal"),
    ("charlm_transformer", "model.heads=3", "model.heads: 3 heads do not divide a width of 32; "),
    ("digits_cnn", "model={name: cnn, norm: group, groups: 7}",
     "model.groups: 7 groups do not divide 16 channels"),
    ("digits_mlp", "model={name: autoencoder}", "model.name: an autoencoder gives back the 64 val"),
    ("digits_mlp", "data={name: csv, file: one.csv, x: [a], y: [kind], classes: true}",
     "data.y[0]: column 'kind' of "),
    ("digits_mlp", "validation.fraction=1e-4", "validation.fraction: 0.0001 of 1797 rows leaves n"),
    ("digits_mlp", "validation.fraction=0.9999", "validation.fraction: 0.9999 of 1797 rows leaves"),
    ("adding_lstm", "data.length=0", "data.length: expected a number >= 2, got 0"),
    ("charlm_transformer", "data.context=0", "data.context: expected a number > 0, got 0"),
    ("digits_mlp", 'model={name: "nowhere:Thing"}', "model.name: cannot import 'nowhere' (ModuleN"),
    ("digits_mlp", 'model={name: "own_things:Thing"}', "model.name: module 'own_things' has no 'T"),
    ("digits_mlp", 'model={name: "own_things:Plain"}', "model: it made a Plain, which is no torch"),
    ("digits_mlp", 'data={name: "own_things:Plain"}', "data: it gives a Plain, expected (x, y), ("),
]  # fmt: skip


@pytest.mark.parametrize(("name", "override", "message"), NETWORKS, ids=lambda value: value[:40])
def test_networks_and_data_that_do_not_fit(
    run: Run, name: str, override: str, message: str
) -> None:
    Path("one.csv").write_text("a,kind\n1,x\n2,x\n")
    Path("own_things.py").write_text("class Plain: pass\n")
    told = refused(run("--config", CONFIGS / f"{name}.yaml", override))
    assert told.startswith(f"command line: {override}: {message}")
    assert "\n" not in told


def test_rows_that_the_built_in_model_cannot_take(run: Run) -> None:
    Path("own.py").write_text(MODULE)
    sys.modules.pop("own", None)
    message = refused(run("--config", LINEAR, "data={name: 'own:flat'}")).splitlines()[0]
    got = "linear needs rows of floating-point numbers; the data gives tokens"
    assert message.endswith(f": model: {got}")


def test_the_users_own_model_is_accepted(run: Run) -> None:
    Path("own.py").write_text(MODULE)
    sys.modules.pop("own", None)
    ended = run("--config", LINEAR, "--check", "model={name: 'own:Small', width: 1, other: 2}")
    assert ended == (0, f"{LINEAR}: valid; 2 parameters, 2 rows\n", "")


def test_run_folders_that_cannot_be_used(run: Run) -> None:
    Path("full").mkdir()
    Path("full/file").write_text("")
    for folder, message in {
        "full": "--run-dir full: is not empty; name a new folder",
        "full/file": "full/file: cannot make the run's folder: File exists",
        "full/file/below": "full/file/below: cannot make the run's folder: Not a directory",
        "a\nb": "--run-dir 'a\\nb': not a printable name",
    }.items():
        assert refused(run("--config", LINEAR, "--run-dir", folder)) == message
    assert [path.name for path in Path().iterdir()] == ["full"]


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.name)
def test_committed_configurations(run: Run, config: Path) -> None:
    assert config.read_text().splitlines()[0] == "# yaml-language-server: $schema=schema.json"
    printed = run("--config", config, "--print-config")
    assert (printed.status, printed.err) == (0, "")
    Path("copy.yaml").write_text(printed.out)
    assert run("--config", "copy.yaml", "--print-config") == printed
    original, _ = load(config, [], [experiment.check])
    assert load(Path("copy.yaml"))[0] == original
    assert Document("", dump(resolved(original))).tree == resolved(original)


def test_overrides_show_in_the_printed_configuration(run: Run) -> None:
    arguments = ["optimizer.lr=1e-2", "--print-config", "stop.steps=50", "name=slow"]
    printed = Document("", run("--config", LINEAR, *arguments).out).tree
    assert (printed["optimizer"], printed["name"]) == ({"name": "sgd", "lr": 0.01}, "slow")
    assert printed["stop"] == {"cost": 0.01, "steps": 50, "patience_steps": None}
    assert printed["clip"] == {"max_grad_norm": None, "max_grad_value": None}  # a default


def test_check_builds_and_leaves_nothing_behind(run: Run) -> None:
    assert run("--config", LINEAR, "--check") == (0, f"{LINEAR}: valid; 2 parameters, 2 rows\n", "")
    assert list(Path().iterdir()) == []


def test_files_are_found_from_the_configuration_and_from_the_command_line(run: Run) -> None:
    Path("below").mkdir()
    Path("below/data.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    Path("data.csv").write_text("a,b\n1,2\n")
    data = "data: {name: csv, file: data.csv, x: [a], y: [b]}\n"
    text = dump({k: v for k, v in resolved(load(LINEAR)[0]).items() if k not in ("data", "model")})
    Path("below/own.yaml").write_text(text + data + "model: {name: linear}\n")
    check = ["--config", "below/own.yaml", "--check"]
    assert "3 rows" in run(*check).out
    assert "1 rows" in run(*check, "data.file=data.csv").out


def test_the_schema_is_the_committed_one(run: Run) -> None:
    printed = run("schema")
    assert printed.out == (CONFIGS / "schema.json").read_text(), "python -m trainer schema > it"
    schema = json.loads(printed.out)
    assert schema == json_schema()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        f"{section['title']}.{key}"
        for section in sections
        for key, value in section["properties"].items()
        if not value.get("description")
    ]
    assert undescribed == []


def test_as_a_program(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", "--config", str(LINEAR), "optimizer.lrr=1"]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    message = "optimizer.lrr: SGD has no such argument; did you mean 'lr'?\n"
    expected = f"command line: optimizer.lrr=1: {message}"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", expected)
    assert list(tmp_path.iterdir()) == []


LOADED = """
import sys
from trainer.__main__ import main
assert main(sys.argv[1:]) == 0
print(sorted({"sympy", "torch._dynamo", "numba"} & sys.modules.keys()))
"""


def test_a_small_run_loads_nothing_that_takes_a_second(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOADED, "--config", str(LINEAR), "stop.steps=3"]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "[]\n")


@pytest.mark.parametrize(
    "arguments",
    [["schema"], ["--config", str(LINEAR), "--print-config"], ["--config", str(LINEAR), "--check"]],
    ids=["schema", "print", "check"],
)
def test_what_no_one_reads_on_ends_in_silence(tmp_path: Path, arguments: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "trainer", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=writes, stderr=subprocess.PIPE, text=True
    )
    os.close(writes)
    assert (ended.returncode, ended.stderr) == (0, "")


WITHOUT = (
    "import sys; sys.modules[{!r}] = None; from trainer.__main__ import main; sys.exit(main())"
)


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("torch", ["--config", str(LINEAR)]), ("pydantic", ["schema"]), ("yaml", ["report", "."])],
)
def test_a_python_without_what_is_needed(
    tmp_path: Path, missing: str, arguments: list[str]
) -> None:
    command = [sys.executable, "-c", WITHOUT.format(missing), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    told = f"{missing} is missing in {sys.executable}: use scripts/train, or .venv/bin/python -m "
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"{told}trainer, or install it: pip install -e .\n"


def test_what_is_needed_is_what_the_project_declares() -> None:
    project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())["project"]
    names = {re.split("[<>=]", needed)[0] for needed in project["dependencies"]}
    imported = {"pyyaml": "yaml", "google-crc32c": "google_crc32c"}
    assert {imported.get(name, name) for name in names} == NEEDED


def test_a_module_of_the_users_own_that_is_missing_keeps_its_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment, "build", lambda *_: importlib.import_module("nowhere"))
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        run("--config", LINEAR, "--check")
