"""README says what the program does."""

import re
import shlex
from pathlib import Path

import pytest

from trainer import sweep
from trainer.__main__ import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_reference_of_keys_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import readme_keys

    assert readme_keys.written(README) == README, "run python scripts/readme_keys.py"


def test_every_config_is_listed() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"`{path.name}`" in README


def test_its_commands_are_accepted() -> None:
    """Each line `python -m trainer …` of a code block, checked: nothing is trained."""
    commands = re.findall(r"^python -m trainer (.*?)(?:\s+#.*)?$", README, re.MULTILINE)
    assert commands
    for command in commands:
        if command.startswith("--config configs/"):
            assert main([*shlex.split(command), "--check"]) == 0, command
    sweeps = [shlex.split(command) for command in commands if command.startswith("sweep ")]
    plans = [sweep.plan(Path(config), axes, "grid", None) for _, _, config, *axes, _, _ in sweeps]
    assert [plan.trials for plan in plans] == [6, 12]


def test_the_mistake_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "configs" / "linear.yaml").read_text().replace("lr: 0.1", "lr: 0.1, lrr: 0.1")
    config = tmp_path / "linear.yaml"
    config.write_text(text)
    assert main(["--config", str(config)]) == 2
    shown = capsys.readouterr().err.splitlines()[0].split(": ", 1)[1]
    assert shown in README
