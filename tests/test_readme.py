"""README says what the program does."""

import ast
import importlib
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


def test_each_number_of_a_finding_is_explained_and_none_is_that_no_finding_has() -> None:
    named: set[str] = set()
    for path in (ROOT / "trainer" / "diagnosis").glob("*.py"):
        module = importlib.import_module(f"trainer.diagnosis.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Symptom", "_found"):
                given = [*node.args, *(word.value for word in node.keywords)]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "evidence":
                given = [node.value]
            elif isinstance(node, ast.keyword) and node.arg == "evidence":
                given = [node.value]
            elif isinstance(node, ast.Assign) and ast.unparse(node).startswith("evidence["):
                named.add(eval(ast.unparse(node.targets[0].slice), vars(module)))  # type: ignore[attr-defined]
                continue
            else:
                continue
            keys = [key for each in given if isinstance(each, ast.Dict) for key in each.keys if key]
            for key in keys:
                ways = [key.body, key.orelse] if isinstance(key, ast.IfExp) else [key]
                named.update(eval(ast.unparse(way), vars(module)) for way in ways)
    rules = (ROOT / "trainer" / "diagnosis" / "RULES.md").read_text()
    section = rules.partition("## What the numbers of a finding mean\n")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert explained == sorted(named)
