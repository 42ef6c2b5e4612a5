"""Modules stand in rows and import only from rows below; what must be light loads no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "trainer"

# A module may import from its own entry's package and from entries in later rows.
ROWS = [
    ["__main__"],
    ["session", "report", "sweep", "difference"],
    ["outcome"],
    ["loop", "run_dir"],
    ["checkpoints", "training"],
    ["experiment"],
    ["monitor", "misfits", "models", "evaluation"],
    ["losses", "schedules"],
    [
        *("autograd", "statistics", "data", "optimizers", "events", "console", "columns"),
        *("plugin", "devices", "progress", "signals", "clipping"),
    ],
    ["programs", "random_numbers", "callables", "summary", "memory", "last_words"],
    ["faults"],
    ["config", "diagnosis", "wire"],
    ["record", "finding"],
]
# The same within a package; what it is named for stands in its __init__.
ROWS_WITHIN = {
    "monitor": [
        ["__init__"],
        ["observation"],
        ["update", "structure"],
        ["last_pass"],
        ["activations", "breaking", "checkup", "journal", "leftover", "watched"],
        ["measured", "patterns"],
        ["layer_calls", "recurrence"],
        ["layers", "time_steps", "step_loss", "cadence", "reminders", "phase", "held", "hook"],
        ["shards", "branches", "last_activation", "others"],
        ["graph"],
    ],
    "checkpoints": [
        ["resume"],
        ["__init__"],
        ["state", "checkpoint"],
        ["plain", "tensor_file", "listing"],
    ],
}
Rows = list[list[str]]


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def entry(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(source: str, package: str = "trainer") -> set[str]:
    """The entries of a package that a module's source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        inside = [n.removeprefix(f"{package}.") for n in names if n.startswith(f"{package}.")]
        found |= {name.split(".")[0] for name in inside}
    return found


def upward(rows: Rows, name: str, imported: set[str]) -> set[str]:
    row_of = {entry: row for row, entries in enumerate(rows) for entry in entries}
    assert name in row_of, f"give {name} a row"
    # Of a name that is no entry the package's own file is asked.
    others = {other if other in row_of else "__init__" for other in imported} - {name}
    return {other for other in others if row_of[other] <= row_of[name]}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    source = path.read_text()
    assert not upward(ROWS, entry(path), imports(source))
    if path.parent.name in ROWS_WITHIN:
        within = imports(source, f"trainer.{path.parent.name}")
        assert not upward(ROWS_WITHIN[path.parent.name], path.stem, within)
    assert len(source.splitlines()) <= 250, "split by meaning"


def test_an_upward_import_would_be_seen() -> None:
    assert upward(ROWS, "record", imports("def f():\n    from trainer import loop")) == {"loop"}
    assert upward(ROWS, "events", imports("import trainer.console")) == {"console"}
    assert not upward(ROWS, "loop", imports("from trainer.monitor import Monitor"))
    rows, package = ROWS_WITHIN["monitor"], "trainer.monitor"
    found = imports("from trainer.monitor import Monitor, cadence", package)
    assert upward(rows, "cadence", found) == {"__init__"}
    assert not upward(rows, "observation", imports("from trainer.monitor import shards", package))


HEAVY = "('torch', 'numba', 'tensorboard')"
LIGHT = "import sys, {module}; print([m for m in " + HEAVY + " if m in sys.modules])"


@pytest.mark.parametrize(
    "module",
    ["trainer", "trainer.wire", "trainer.config", "trainer.diagnosis", "trainer.__main__"],
)
def test_light_modules_load_no_torch(module: str) -> None:
    code = LIGHT.format(module=module)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_light_check_can_fail() -> None:
    code = LIGHT.format(module="trainer.losses")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "torch" in result.stdout


def test_a_threshold_of_the_diagnosis_has_a_name_of_its_own() -> None:
    """So that a rule's number is found, and told from another rule's, by its name alone."""
    places: dict[str, set[str]] = {}
    for path in (PACKAGE / "diagnosis").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for name in (
                n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)
            ):
                if name.isupper():
                    places.setdefault(name, set()).add(path.name)
    assert len(places) > 100
    assert not {name: files for name, files in places.items() if len(files) > 1}
