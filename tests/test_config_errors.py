"""Each mistake in a configuration is told once, at its place, with the value and what to do."""

import re
import resource
import time
from pathlib import Path

import pytest

from trainer import experiment, memory
from trainer.config import ConfigError, load
from trainer.config.problem import did_you_mean, dotted, shown
from trainer.config.schema import Config
from trainer.config.source import Document

CONFIGS = Path(__file__).parent.parent / "configs"
LINEAR = """\
name: linear
seed: 0
data: {name: points, x: [[2.0], [3.0]], y: [[3.0], [2.0]]}
model: {name: linear, weight: 1.6649098, bias: 0.54648024}
loss: {name: half_squared_error, reduction: sum}
optimizer: {name: sgd, lr: 0.1}
stop: {cost: 0.01, steps: 1000}
monitor: {every_steps: 1, histogram_every_steps: 10}
"""


def test_the_base_is_the_committed_configuration() -> None:
    assert Document("", LINEAR).tree == Document("", (CONFIGS / "linear.yaml").read_text()).tree


def errors(text: str, *overrides: str) -> list[str]:
    """The messages for a configuration in the working folder; [] when it can be built."""
    Path("config.yaml").write_text(text, encoding="utf-8")
    try:
        experiment.build(*load(Path("config.yaml"), overrides, [experiment.check]))
    except ConfigError as error:
        return error.messages
    return []


def told(text: str, offset: int, message: str) -> str:
    """The message as it has to look for the character at an offset of the text."""
    row, start = text.count("\n", 0, offset) + 1, text.rfind("\n", 0, offset) + 1
    column = offset - start + 1
    line = text.splitlines()[row - 1]
    return f"config.yaml:{row}:{column}: {message}\n    {line}\n{' ' * (column + 3)}^"


def changed(path: str, value: str) -> tuple[str, int, int]:
    """LINEAR with a key set, and the offsets of the key and of its value."""
    section, _, key = path.rpartition(".")
    scope = rf"^{section}: \{{.*\}}$" if section else r"\A(?s:.*)\Z"
    begin = rf"(?<=[{{ ]){key}: " if section else rf"(?m:^){key}: "
    found = re.search(scope, LINEAR, re.MULTILINE)
    if found is None:
        text = f"{LINEAR}{section}: {{{key}: {value}}}\n"
        at = len(LINEAR) + len(section) + 3
        return text, at, at + len(key) + 2
    inside = re.search(begin + r"(\{.*\}|\[\[.*?\]\]|[^,}\n]+)", found[0])
    if inside is not None:
        at, end = found.start() + inside.start(), found.start() + inside.end()
        text = f"{LINEAR[:at]}{key}: {value}{LINEAR[end:]}"
    elif section:
        at = found.end() + 1
        text = f"{LINEAR[: at - 2]}, {key}: {value}{LINEAR[at - 2 :]}"
    else:
        at = len(LINEAR)
        text = f"{LINEAR}{key}: {value}\n"
    return text, at, at + len(key) + 2


FINITE = "expected a finite number or nested lists of finite numbers"
SGD = "dampening, differentiable, foreach, fused, lr, maximize, momentum, nesterov, weight_decay"
TOP = ", ".join(sorted(Config.model_fields))
NAME = "expected up to 100 of A-Z a-z 0-9 _ - . (no - or . at the start)"
MODELS = "linear, mlp, cnn, rnn, transformer, autoencoder"
OR_OWN = "(or your own module:Thing)"
META = "cannot use 'meta': Tensor.item() cannot be called on meta tensors; use auto or cpu"
ROWS = "row 1 has 2 values and row 0 has 1; every row needs the same number"
WEIGHTS = "expected sample weights of 0 or more, at least one of them above 0"
SPARSE = "SparseAdam needs sparse gradients, and no layer of the model gives them; use Adam"
FLOW = "while parsing a flow sequence, did not find expected ',' or ']'"

MISTAKES = [  # path, value, message
    # types
    ("seed", "zero", "expected an integer, got 'zero'"),
    ("seed", "1e3", "expected an integer, got 1000.0; write 1000"),
    ("seed", "1.5", "expected an integer, got 1.5"),
    ("seed", "'1'", "expected an integer, got '1'; remove the quotes"),
    ("seed", "1_000", "expected an integer, got '1_000'; write 1000"),
    ("seed", "1,000", "expected an integer, got '1,000'"),
    ("seed", "true", "expected an integer, got true"),
    ("seed", "12:30:00", "expected an integer, got '12:30:00'"),
    ("stop.cost", "low", "expected a number, got 'low'"),
    ("stop.cost", "'0,01'", "expected a number, got '0,01'; write 0.01"),
    ("stop.cost", "'1e-2'", "expected a number, got '1e-2'; remove the quotes"),
    ("stop.cost", "yes", "expected a number, got 'yes'"),
    ("stop.cost", ".nan", "expected a finite number, got .nan"),
    ("optimizer.lr", "[0.1]", "expected a number, got a list of 1"),
    ("optimizer.lr", "null", "expected a number, got null"),
    ("data.shuffle", "no", "expected true or false, got 'no'"),
    ("data.shuffle", "1", "expected true or false, got 1"),
    ("data.x", "3", "expected a list, got 3"),
    ("device", "3", "expected a string, got 3"),
    ("device", "''", "expected at least 1 character, got ''"),
    ("optimizer.name", "x" * 1001, f"expected at most 1,000 characters, got '{'x' * 76}..."),
    ("model.weight", "heavy", f"{FINITE}, got 'heavy'"),
    ("model.weight", "[[true]]", f"{FINITE}, got a list of 1"),
    # bounds
    ("optimizer.lr", "0", "expected a number > 0, got 0"),
    ("optimizer.lr", "-0.1", "expected a number > 0, got -0.1"),
    ("stop.steps", "0", "expected a number > 0, got 0"),
    ("stop.steps", str(10**16), "expected a number <= 1000000000000000, got 10000000000000000"),
    ("seed", "-1", "expected a number >= 0, got -1"),
    ("seed", "0x100000000", "expected a number < 4294967296, got 4294967296"),
    ("clip.max_grad_norm", "0.0", "expected a number > 0, got 0.0"),
    ("data.x", "[]", "expected a list of at least 1, got an empty list"),
    ("stop.cost", "1e400", "the number is too large"),
    ("stop.cost", "-1" + "0" * 400, "the number is too large"),
    ("seed", "9" * 5000, "the number is too large"),
    # sections
    ("stop", "", "expected a section with keys cost, steps, patience_steps, got null"),
    ("clip", "", "expected a section with keys max_grad_norm, max_grad_value, got null"),
    ("data", "", "expected a section with a key 'name', got null"),
    ("loss", "mse", "expected a section with keys name, reduction, got 'mse'"),
    ("optimizer", "[]", "expected a section with keys name, lr, got an empty list"),
    # names
    ("name", "../x", f"{NAME}, got '../x'"),
    ("name", '"a\\0b"', f"{NAME}, got 'a\\x00b'"),
    ("dtype", "float16", "unknown value 'float16'; known: float32, float64"),
    ("dtype", "{}", "unknown value an empty section; known: float32, float64"),
    ("loss.reduction", "average", "unknown value 'average'; known: mean, sum"),
    ("stop_on", "wrning", "unknown value 'wrning'; did you mean 'warning'?"),
    ("stop_on", "never", "unknown value 'never'; known: critical, warning, null"),
    ("stop_on", "'null'", "unknown value 'null'; known: critical, warning, null"),
    ("stop_on", "3", "unknown value 3; known: critical, warning, null"),
    ("data.name", "point", f"unknown name 'point'; did you mean 'points'? {OR_OWN}"),
    ("data.name", "[]", "expected a string, got an empty list"),
    ("model.name", "mlp?", f"unknown name 'mlp?'; did you mean 'mlp'? {OR_OWN}"),
    ("loss.name", "msee", "unknown loss 'msee'; did you mean 'mse'?"),
    ("optimizer.name", "sdg", "unknown optimizer 'sdg'; did you mean 'SGD'?"),
    ("optimizer.name", "''", "expected at least 1 character, got ''"),
    ("model.name", "':Thing'", "expected package.module:Thing, got ':Thing'"),
    # arguments of the optimizer
    ("optimizer.nesterov", "no", "expected bool for this argument of SGD, got 'no'"),
    ("optimizer.momentum", "[0.9]", "expected float for this argument of SGD, got a list of 1"),
    ("optimizer.momentum", ".inf", "expected a finite number, got .inf"),
    ("optimizer.momentum", "-1", "SGD refuses -1: Invalid momentum value: -1"),
    # keys, at each depth
    ("optimizr", "1", "unknown key; did you mean 'optimizer'?"),
    ("nothing_like_it", "1", f"unknown key; known: {TOP}"),
    ("lr", "0.1", "unknown key; did you mean optimizer.lr?"),
    ("widths", "[3]", "unknown key; did you mean model.widths?"),
    ("stop.step", "1", "unknown key; did you mean 'steps'?"),
    ("loss.zzz", "1", "half_squared_error has no such argument"),
    ("data.xs", "1", "unknown key; did you mean 'x'?"),
    ("data.file", "a", "unknown key; known: batch_size, name, shuffle, weights, x, y"),
    ("clip.max_grad_nrm", "1", "unknown key; did you mean 'max_grad_norm'?"),
    ("optimizer.momentun", "0.9", "SGD has no such argument; did you mean 'momentum'?"),
    ("optimizer.betas", "[0.9, 0.9]", f"SGD has no such argument; known: {SGD}"),
    # YAML
    ("seed", "!!int 3", "tags are not supported; write the value alone"),
    # what only building finds
    ("device", "warp", None),
    ("device", "meta", META),
    ("model.weight", "[1.0, 2.0]", "shape (2,) does not fit; expected ()"),
    ("model.weight", "[[1.0], [2.0, 3.0]]", "the lists differ in length; expected shape ()"),
    ("model.weight", "1e300", "not finite in torch.float32"),
    ("data.x", "[[1e300], [1.0]]", "x holds values that are not finite in float32"),
    ("data.x", "[[1.0], [2.0, 3.0]]", ROWS),
    ("data.x", "[[], [2.0]]", "row 0 is empty"),
    ("data.weights", "[0.0, 0]", WEIGHTS),
    ("optimizer.name", "SparseAdam", SPARSE),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("path", "value", "message"), MISTAKES)
def test_mistake(path: str, value: str, message: str | None) -> None:
    text, key_at, value_at = changed(path, value)
    at_key = message is not None and (" has no such " in message or "unknown key" in message)
    override = f"{path}={value}"
    place = override if len(override) <= 200 else f"{override[:197]}..."
    if message is None:  # torch lists its kinds of devices
        [in_file], [on_line] = errors(text), errors(LINEAR, override)
        assert in_file.startswith("config.yaml:9:9: device: cannot use 'warp': Expected one of cpu")
        assert on_line.startswith("command line: device=warp: device: cannot use 'warp': Expected")
        return
    [in_file] = errors(text)
    # An empty value stands where the space after the colon is.
    expected = told(text, key_at if at_key else value_at - (not value), f"{path}: {message}")
    assert in_file.splitlines()[0] == expected.splitlines()[0]
    if len(expected.splitlines()[1]) < 120:
        assert in_file == expected
    assert errors(LINEAR, override) == [f"command line: {place}: {path}: {message}"]


ELEMENTS = [
    ("data.x", "[['a'], [3.0]]", "data.x[0][0]: expected a number, got 'a'", 2),
    ("data.x", "[[1.0], [.inf]]", "data.x[1][0]: expected a finite number, got .inf", 9),
    ("data.y", "[[1.0], 2.0]", "data.y[1]: expected a list, got 2.0", 8),
    ("data.weights", "[1.0, -1.0]", "data.weights[1]: expected a number >= 0, got -1.0", 6),
]


@pytest.mark.parametrize(("path", "value", "message", "offset"), ELEMENTS)
def test_mistake_inside_a_list(path: str, value: str, message: str, offset: int) -> None:
    text, _, value_at = changed(path, value)
    assert errors(text) == [told(text, value_at + offset, message)]
    assert errors(LINEAR, f"{path}={value}") == [f"command line: {path}={value}: {message}"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.x=[[1.0], [2.0], [3.0]]"], "data: x has 3 rows and y has 2; make them equal"),
        (["data.weights=[1.0]"], "data: x has 2 rows and weights has 1; make them equal"),
    ],
)
def test_lengths_that_disagree_are_told_at_the_section(overrides: list[str], message: str) -> None:
    assert errors(LINEAR, *overrides) == [told(LINEAR, LINEAR.index("{name: points"), message)]


def test_clipping_for_an_optimizer_that_computes_its_gradients_itself() -> None:
    lbfgs = "optimizer={name: lbfgs, lr: 0.1}"
    clip = ["clip.max_grad_norm=1", "clip.max_grad_value=0.5"]
    message = (
        "optimizer.name is lbfgs, which computes the gradient anew within its step, unclipped; "
        "leave this out, or use another optimizer"
    )
    for keys in (clip[:1], clip):
        assert errors(LINEAR, lbfgs, *keys) == [
            f"command line: {key}: {key.partition('=')[0]}: {message}" for key in keys
        ]
    assert errors(LINEAR, lbfgs) == errors(LINEAR, *clip) == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("name", "missing: Name of the experiment: its runs are written to `runs/<name>/`"),
        ("data", "missing: What the model is fitted to"),
        ("model", "missing: What is fitted"),
        ("loss", "missing: What is minimised"),
        ("optimizer", "missing: How it is minimised"),
    ],
)
def test_missing_section(key: str, message: str) -> None:
    text = re.sub(rf"^{key}: .*\n", "", LINEAR, flags=re.MULTILINE)
    assert errors(text) == [f"config.yaml: {key}: {message}"]


@pytest.mark.parametrize(
    ("section", "key", "message"),
    [
        ("optimizer", "lr: 0.1", "optimizer.lr: missing: Learning rate"),
        ("data", "x: [[2.0], [3.0]]", "data.x: missing: Inputs, one list per row"),
        ("model", "name: linear", f"model.name: missing: one of {MODELS} or your own module:Thing"),
    ],
)
def test_missing_key_is_told_at_its_section(section: str, key: str, message: str) -> None:
    text = re.sub(rf"^({section}: .*?){re.escape(key)}(, )?", r"\1", LINEAR, flags=re.MULTILINE)
    assert errors(text) == [told(text, text.index(f"\n{section}:") + 1, message)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lr: 0.1", "lrr: 0.1", "optimizer.lrr: SGD has no such argument; did you mean 'lr'?"),
        ("optimizer:", "optimiser:", "optimiser: unknown key; did you mean 'optimizer'?"),
        ("x: [[2.0]", "xx: [[2.0]", "data.xx: unknown key; did you mean 'x'?"),
    ],
)
def test_a_misspelt_key_that_is_needed_is_one_mistake(old: str, new: str, message: str) -> None:
    text = LINEAR.replace(old, new)
    assert errors(text) == [told(text, text.index(new), message)]


def test_a_key_set_twice() -> None:
    text = LINEAR.replace("lr: 0.1", "lr: 0.1, lr: zero")
    message = "optimizer.lr: the key is set twice (first at line 6)"
    assert errors(text) == [told(text, text.index("lr: zero"), message)]
    override = "stop={cost: 1, cost: 2}"
    assert errors(LINEAR, override) == [
        f"command line: {override}: stop.cost: the key is set twice"
    ]


@pytest.mark.parametrize(
    "override", ["", "=", "=1", "seed", "a..b=1", ".a=1", "data.=1", ".".join("x" * 99) + "=1"]
)
def test_an_override_that_is_none(override: str) -> None:
    expected = "expected section.key=value, such as optimizer.lr=1e-2"
    assert errors(LINEAR, override) == [f"command line: {override}: {expected}"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr==3", "optimizer.lr: expected a number, got '=3'"),
        ("data.x.0=3", "data.x: is a list of 2, not a section with keys"),
        ("seed.x=3", "seed: is 0, not a section with keys"),
        ("stop.x[0]=3", "stop.'x[0]': unknown key; known: cost, patience_steps, steps"),
        ("seed=[1", f"seed: not valid YAML: {FLOW}"),
        ("seed=a: b: c", "seed: not valid YAML: mapping values are not allowed in this context"),
        ("clip.x.y.z=1", "clip.x: unknown key; known: max_grad_norm, max_grad_value"),
        ("optimizer={<<: {lr: 1}}", "optimizer: YAML 1.2 has no '<<'; write the keys out"),
    ],
)
def test_an_override_that_does_not_fit(override: str, message: str) -> None:
    assert errors(LINEAR, override) == [f"command line: {override}: {message}"]


def test_unprintable_overrides_are_escaped() -> None:
    for character in ("\x07", "\udcff"):
        [message] = errors(LINEAR, f"seed={character}")
        shown_ = repr(character)[1:-1]
        told_ = f"seed: not valid YAML: the character '{shown_}' is not allowed"
        assert message == f"command line: 'seed={shown_}': {told_}"


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    [message] = errors(LINEAR.replace("lr: 0.1", "lr: \u202e1"))
    assert message.endswith("got '\\u202e1'\n    optimizer: {name: sgd, lr: ?1}\n" + " " * 31 + "^")
    [message] = errors(LINEAR.replace("sgd", "s\x1b[2Jgd"))
    assert "\x1b" not in message and "\\x1b" in message
    missing = "data={name: text, file: 'a\u202e'}"
    [message] = errors(LINEAR, missing)
    assert message.endswith("/a\\u202e")


def test_more_values_on_the_command_line_than_anyone_writes() -> None:
    assert errors(LINEAR, *["seed=1"] * 1000) == []
    told_ = "command line: more than 1,000 values; write a file"
    assert errors(LINEAR, *["seed=1"] * 1001) == [told_]


def test_thousands_of_unknown_keys_are_told_within_a_second() -> None:
    keys = ", ".join(f"k{number}: 1" for number in range(14_000))
    for section in ("stop: {", "optimizer: {name: sgd, lr: 1, "):
        started = time.process_time()
        messages = errors(f"{LINEAR[: LINEAR.index('optimizer')]}{section}{keys}}}\n")
        assert time.process_time() - started < 3
        assert messages[-1] == "... and many more"


LARGE = [
    ("data={name: circles, samples: 1000000000}", "data.samples: 1,000,000,000 rows of 2 inputs"),
    ("data={name: moons, samples: 1000000000}", "data.samples: 1,000,000,000 rows of 2 inputs"),
    ("data={name: blobs, samples: 10, features: 1000000000000}",
     "data.samples: 13 rows of 1,000,000,000,000 inputs"),
    ("data={name: adding_problem, samples: 1000000000000}",
     "data.samples: 1,000,000,000,000 sequences of 100 steps"),
    ("data={name: copy_memory, samples: 1000000000000}",
     "data.samples: 1,000,000,000,000 sequences of 120 steps"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), LARGE)
def test_what_memory_does_not_hold_is_refused_before_it_is_taken(
    override: str, message: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [told_] = errors(LINEAR, override)
    assert told_.startswith(f"command line: {override}: {message}"), told_
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_model_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10**6)
    override = "model={name: mlp, depth: 3, width: 400}"
    sizes = "take 1.3 MB or more of memory, and 1.0 MB are free"
    assert errors(LINEAR, override) == [
        f"command line: {override}: model: its parameters and their gradients {sizes}"
    ]
    assert errors(LINEAR, override.replace("400", "200")) == []


def test_overrides_are_applied_in_order_and_create_sections() -> None:
    Path("config.yaml").write_text(LINEAR)
    overrides = ["optimizer.lr=5", "optimizer.lr=1e-2", "clip.max_grad_norm=2", "name=a=b"]
    with pytest.raises(ConfigError, match="name=a=b: name: .* got 'a=b'"):
        load(Path("config.yaml"), overrides)
    config, _ = load(Path("config.yaml"), [*overrides[:3], "name=slow"])
    assert (config.optimizer.lr, config.clip.max_grad_norm, config.name) == (0.01, 2, "slow")


def test_all_mistakes_at_once_in_the_order_of_the_source() -> None:
    text = LINEAR.replace("seed: 0", "sed: 0").replace("reduction: sum", "reduction: summ")
    text = text.replace("lr: 0.1", "lr: 0, lr: 1").replace("steps: 1000", "steps: 0.5")
    assert errors(text, "monitor.every_steps=0", "foo", "name=a/b") == [
        told(text, text.index("sed:"), "sed: unknown key; did you mean 'seed'?"),
        told(
            text, text.index("summ}"), "loss.reduction: unknown value 'summ'; did you mean 'sum'?"
        ),
        told(text, text.index("lr: 1}"), "optimizer.lr: the key is set twice (first at line 6)"),
        told(text, text.index("0.5}"), "stop.steps: expected an integer, got 0.5"),
        "command line: foo: expected section.key=value, such as optimizer.lr=1e-2",
        f"command line: name=a/b: name: {NAME}, got 'a/b'",
        "command line: monitor.every_steps=0: monitor.every_steps: expected a number > 0, got 0",
    ]


def test_a_flood_of_mistakes_is_cut() -> None:
    messages = errors(changed("data.x", f"[{', '.join(['a'] * 500)}]")[0])
    assert len(messages) == 21
    assert messages[-1] == "... and 480 more"


def test_a_long_line_is_shown_as_a_window() -> None:
    text = changed("data.x", f"[{'[1.0], ' * 1000}[one]]")[0]
    place, window, caret = errors(text)[0].splitlines()
    assert place.endswith(": data.x[1000][0]: expected a number, got 'one'")
    assert len(window) <= 124
    assert window[caret.index("^") :].startswith("one]]")


def test_tabs_keep_the_caret_in_place() -> None:
    text = LINEAR.replace("lr: 0.1", "lr:\t\tx")
    _, line, caret = errors(text)[0].splitlines()
    assert line[caret.index("^")] == "x"


def test_keys_named_like_classes_of_the_schema() -> None:
    data = "data={name: csv, Csv: 1, file: f, x: [a], y: b}"
    known = "autoencode, batch_size, classes, file, name, shuffle, standardize, weights, x, y"
    assert errors(LINEAR, data, "Csv=1") == [
        f"command line: {data}: data.y: expected a list, got 'b'",
        f"command line: {data}: data.Csv: unknown key; known: {known}",
        f"command line: Csv=1: Csv: unknown key; known: {TOP}",
    ]


def test_words() -> None:
    assert dotted(("data", "x", 0, 1)) == "data.x[0][1]"
    assert dotted(("", "a.b")) == "''.'a.b'"
    assert did_you_mean("Sgd", ["SGD", "Adam"]) == "; did you mean 'SGD'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("zzz", [f"a{i:02}" for i in range(40)]).endswith(", a29, ...")
    assert [shown(v) for v in (None, False, 1e-9, -float("inf"))] == [
        "null",
        "false",
        "1e-09",
        "-.inf",
    ]
    assert [shown(v) for v in ({}, [], {"a": 1})] == [
        "an empty section",
        "an empty list",
        "a section",
    ]
    assert shown("é" * 10**6) == "'" + "é" * 76 + "..."
