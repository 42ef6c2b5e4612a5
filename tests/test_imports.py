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
    ["loop", "resume"],
    ["checkpoints"],
    ["state"],
    ["experiment", "monitor", "run_dir"],
    ["misfits", "observation", "models", "evaluation"],
    ["update", "structure"],
    ["last_pass"],
    ["activations", "breaking", "checkup", "journal", "leftover", "losses", "schedules", "watched"],
    ["measured", "patterns"],
    ["layer_calls", "recurrence"],
    [
        *("autograd", "statistics", "data", "optimizers", "events", "console", "columns"),
        *("plugin", "devices", "layers", "time_steps", "progress", "signals", "checkpoint"),
    ],
    ["plain", "tensor_file", "shards", "held", "programs", "random_numbers"],
    ["callables", "summary", "memory", "cadence", "reminders", "step_loss", "phase"],
    ["branches", "last_activation", "last_words", "others"],
    ["faults", "graph"],
    ["config", "diagnosis", "wire", "checkpoint_folder"],
    ["record", "finding"],
]
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def entry(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(source: str) -> set[str]:
    """The entries of the package that a module's source imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
            if node.module == "trainer":
                names = [f"trainer.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("trainer.")}
    return found


def upward(name: str, imported: set[str]) -> set[str]:
    return {other for other in imported if other != name and ROW_OF[other] <= ROW_OF[name]}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    assert entry(path) in ROW_OF, f"give {entry(path)} a row"
    source = path.read_text()
    assert not upward(entry(path), imports(source))
    assert len(source.splitlines()) <= 250, "split by meaning"


def test_an_upward_import_would_be_seen() -> None:
    assert upward("record", imports("def f():\n    from trainer import loop")) == {"loop"}
    assert upward("events", imports("import trainer.console")) == {"console"}
    assert not upward("loop", imports("from trainer.monitor import Monitor"))


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
