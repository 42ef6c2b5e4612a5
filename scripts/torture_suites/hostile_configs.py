"""Configurations that no one should write: every type in every place, torn bytes, bombs."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from trainer import losses, optimizers, schedules
from trainer.config import load, resolved
from trainer.models import activations, initialisation

CONFIGS = Path(__file__).parent.parent.parent / "configs"
FILES = sorted(CONFIGS.glob("*.yaml"))
Make = Callable[[Path], object]  # makes what stands at a path


@dataclass(frozen=True)
class Case:
    """What is checked: the command's arguments, and the files of its working folder."""

    kind: str
    files: dict[str, Make]
    overrides: tuple[str, ...] = ()
    config: str = "config.yaml"


@dataclass(frozen=True, eq=False)
class Raw:
    """YAML as it is written; as a key, one that a section may hold twice."""

    text: str


def holding(content: bytes, times: int = 1, after: bytes = b"") -> Make:
    """A file of a repeated content and what comes after it, made when it is asked for."""
    return lambda path: path.write_bytes(content * times + after)


def configured(kind: str, text: str | bytes) -> Case:
    """The case of a configuration."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return Case(kind, {"config.yaml": holding(content)})


def flow(value: Any) -> str:
    """The value as YAML on one line."""
    match value:
        case Raw():
            return value.text
        case dict():
            return "{" + ", ".join(f"{flow(key)}: {flow(v)}" for key, v in value.items()) + "}"
        case list():
            return f"[{', '.join(map(flow, value))}]"
        case None | bool():
            return str(value).lower().replace("none", "null")
        case str():
            return "'" + value.replace("'", "''") + "'"
        case float() if value != value or abs(value) == float("inf"):
            return str(value).replace("inf", ".inf").replace("nan", ".nan")
        case _:
            return repr(value)


def written(tree: dict[Any, Any]) -> str:
    """The tree as a configuration, a section a line."""
    return "".join(f"{flow(key)}: {flow(section)}\n" for key, section in tree.items())


TYPES: list[Any] = [
    None, True, 0, -1, 7, 10**9, 0.5, -0.0, float("nan"), float("-inf"), 1e308, "word", "",
    [], [1, "a"], [[0.5], [0.25]], {}, {"name": "relu"}, Raw("2001-12-14"), Raw("!!binary aGk="),
]  # fmt: skip
NUMBERS = [
    *(0, 1, 2, 3, 10, 100, 10_000, 10**6, 10**9, 10**12, 2**31 - 1, 2**31, 2**63 - 1, 2**63),
    *(2**64, 10**15, 10**30, 10**400, -1, -(2**31), -(2**63), 0.0, -0.0, 1e-320, 1e-30, 0.5),
    *(1 - 2**-53, 1.5, 1e15, 1e16, 1e38, 1e39, 1e308, float("inf"), float("-inf"), float("nan")),
]
RAW = [
    *("1e400", "0x" + "f" * 70, "0o777", "1_000", "12:30:00", "2001-12-14T21:59:43.10-05:00"),
    *("~", "yes", "=", "!!int 3", "!!float .inf", "!!set {a, b}", "!!omap [a: 1]", "!local x"),
    *("!!python/object/apply:os.mkdir ['exploded']", "!!python/name:os.mkdir", "&a [*a]"),
    *("&a {b: *a}", "&a 1", "*a", "*nowhere", "{<<: {a: 1}}", "{<<: [{lr: 1}, {lr: 2}]}"),
    *("{a: 1, a: 2}", "{name: sgd, name: adam}", "{? [a] : b}", "{[a]: b}", "{{a: b}: c}"),
    *("[" * 40 + "]" * 40, "{a: " * 40 + "1" + "}" * 40, '"\\0"', '"\\uD800"', '"\\e[2J"'),
    *('"\\u202E"', '"\\x85"', "'\u2028'", "'\U0001f600'", "'" + "x" * 5000 + "'"),
    *("'a\n\n  b'", "[, ]", "]", "}", "{", "[", "'", '"', "|", ">", "@", "`", "%", "- -", ": :"),
]
WORDS = [
    *("auto", "cpu", "cuda", "cuda:99", "meta", "mps", "float16", "float64", "none", "default"),
    *("sum", "mean", "none", "accuracy", "r2", "zeros_", "orthogonal_", "eye_", "relu", "softmax"),
    *("name", "lr", "x", "../../etc/passwd", "/dev/zero", "/dev/null", "/proc/self/mem", "a" * 300),
    *("\x00", "\x1b[2J", "\u202e", "\ud800", "\ufeff", "\x85", "é", "日本", "*", "[", "**", "a:b"),
]


@functools.cache
def bases() -> list[dict[str, Any]]:
    """All keys of each committed configuration, and of what none of them names."""
    more = {
        "circles_mlp": [
            ["data={name: moons}"],
            ["data={name: blobs}", "loss={name: cross_entropy}"],
            ["schedule={name: StepLR, step_size: 3}"],
        ],
        "charlm_transformer": [["data={name: copy_memory, samples: 100}"]],
        "digits_cnn": [["model={name: cnn, kind: lenet}"]],
        "adding_lstm": [["model={name: rnn, kind: gru}"]],
    }
    made = []
    for file in FILES:
        for overrides in [[], *more.get(file.stem, [])]:
            made.append(resolved(load(file, overrides)[0]))
    return made


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a tree; of a list the first two items."""
    if above:
        yield above
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value[:2])
        for key, item in items:
            yield from paths(item, (*above, key))


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a path."""
    for part in path:
        tree = tree[part]
    return tree


def with_value(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree with another value, or a further key, at a path."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    inside = copy.get(path[0], {}) if isinstance(copy, dict) else copy[path[0]]
    copy[path[0]] = with_value(inside, path[1:], value)
    return copy


NEEDED: dict[str, dict[str, Any]] = {
    "steplr": {"step_size": 3}, "multisteplr": {"milestones": [1, 3]}, "exponentiallr":
    {"gamma": 0.9}, "cosineannealinglr": {"T_max": 9}, "cosineannealingwarmrestarts": {"T_0": 3},
    "cycliclr": {"base_lr": 0.1, "max_lr": 0.2}, "onecyclelr": {"max_lr": 0.2, "total_steps": 9},
    "constant": {"val": 0.1}, "sparse": {"sparsity": 0.1},
}  # fmt: skip


def places() -> list[tuple[dict[str, Any], tuple[Any, ...]]]:
    """A configuration and a path in it, for each key of the schema and each argument of torch's."""
    found: dict[Any, tuple[dict[str, Any], tuple[Any, ...]]] = {}
    made = bases()
    for tree in made:
        for path in paths(tree):
            section = tree[path[0]]
            kind = section.get("name") if isinstance(section, dict) else None
            found.setdefault((kind, path), (tree, path))
    by_name = {tree["name"]: tree for tree in made}
    things: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
        ("linear", ("optimizer",), optimizers._BY_NAME),
        ("linear", ("loss",), losses._TORCH),
        ("circles_mlp", ("schedule",), schedules._BY_NAME),
        ("circles_mlp", ("model", "activation"), activations.CLASSES),
        ("digits_mlp", ("model", "init", "hidden"), initialisation.FUNCTIONS),
    ]
    for base, path, known in things:
        for name, thing in known.items():
            section = {"name": name, **NEEDED.get(name, {})}
            section |= {"lr": 0.1} if path == ("optimizer",) else {}
            tree = with_value(by_name[base], path, section)
            for argument in inspect.signature(thing).parameters:
                found[path, name, argument] = tree, (*path, argument)
    return list(found.values())


def every_type_in_every_place(count: int, drawn: random.Random) -> Iterator[Case]:
    """All of TYPES at all places, or so many of them."""
    all_places = places()
    chosen = [(place, value) for place in all_places for value in TYPES]
    drawn.shuffle(chosen)
    for (tree, path), value in chosen[:count]:
        yield configured("a type in a place", written(with_value(tree, path, value)))


def _changed(draw: st.DrawFn, tree: Any) -> Any:
    path = draw(st.sampled_from(list(paths(tree))))
    above = at(tree, path[:-1])
    match draw(st.integers(0, 6)):
        case 0 | 1 | 2:
            return with_value(tree, path, draw(VALUES))
        case 3 if isinstance(above, dict):  # left out
            return with_value(tree, path[:-1], {k: v for k, v in above.items() if k != path[-1]})
        case 4 if isinstance(above, dict):  # another key
            return with_value(tree, (*path[:-1], draw(KEYS)), draw(VALUES))
        case 5:  # what stands elsewhere
            return with_value(tree, path, at(tree, draw(st.sampled_from(list(paths(tree))))))
        case _ if isinstance(above, dict):  # a key twice, one as Raw
            return with_value(tree, (*path[:-1], Raw(str(path[-1]))), draw(VALUES))
        case _:
            return with_value(tree, path, {"name": draw(VALUES)})


LETTERS = st.characters(exclude_categories=("C",), exclude_characters=":") | st.sampled_from(
    "-?#{}[]"
)
SCALARS = st.sampled_from([*NUMBERS, *TYPES, *map(Raw, RAW), *WORDS]) | st.text(LETTERS, max_size=8)
SCALARS |= st.integers() | st.floats() | st.booleans() | st.none()
KEYS = st.sampled_from(["name", "lr", "x", "file", "gain", "samples", "init", *WORDS])
KEYS |= st.text(LETTERS, max_size=8) | st.builds(Raw, st.sampled_from(RAW))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def trees(draw: st.DrawFn) -> str:
    """A configuration in which several things were changed."""
    tree = draw(st.sampled_from(bases()))
    for _ in range(draw(st.integers(1, 5))):
        tree = _changed(draw, tree) or tree
    return written(tree)


def drawn_by_hypothesis(strategy: st.SearchStrategy[Any], count: int, seed: int) -> list[Any]:
    """So many examples of a strategy, the same for the same seed."""
    found: list[Any] = []
    while len(found) < count:

        @hypothesis.seed(seed + len(found))
        @hypothesis.settings(
            max_examples=min(500, count - len(found)),
            phases=[hypothesis.Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategy)
        def collect(example: Any) -> None:
            found.append(example)

        collect()
    return found[:count]


TOKENS = [
    *(
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xfe\xff",
        b"\x1b[2J",
        b"\x7f",
    ),
    *(b"\r", b"\n", b"\r\n", b"\t", b" ", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\\"),
    *(b"&a ", b"*a", b"<<: ", b"!!int ", b"!", b"- ", b"? ", b": ", b"{", b"}", b"[", b"]", b","),
    *(b"'", b'"', b"|", b">", b"#", b"%", b"@", b"`", b"---\n", b"...\n", b"%YAML 9.9\n---\n"),
    *(b"null", b"true", b"-", b".nan", b".inf", b"1e400", b"9" * 400, b"0x", b"name: ", b"lr: "),
]
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp037", "utf-7"]


def torn(content: bytes, drawn: random.Random, others: list[bytes]) -> bytes:
    """The content after one to eight accidents."""
    for _ in range(drawn.choice((1, 1, 2, 3, 8))):
        data, at = bytearray(content), drawn.randrange(len(content) + 1)
        to = min(len(data), at + drawn.choice((1, 2, 8, 64)))
        match drawn.randrange(10):
            case 0 if at < len(data):
                data[at] ^= 1 << drawn.randrange(8)
            case 1 if at < len(data):
                data[at] = drawn.randrange(256)
            case 2:
                del data[at:to]
            case 3:
                data[at:at] = data[at:to] * drawn.choice((1, 2, 100))
            case 4 | 5:
                data[at:at] = drawn.choice(TOKENS) * drawn.choice((1, 1, 2, 50))
            case 6:  # another number where one stands
                digits = [i for i, byte in enumerate(data) if byte in b"0123456789"]
                at = drawn.choice(digits) if digits else at
                data[at : at + 1] = flow(drawn.choice(NUMBERS)).encode()
            case 7:
                other = drawn.choice(others)
                data[at:] = other[drawn.randrange(len(other)) :]
            case 8:
                del data[at:]
            case 9:
                text = data.decode("utf-8", "replace")
                data = bytearray(text.encode(drawn.choice(ENCODINGS), "replace"))
        content = bytes(data) or b" "
    return content


def torn_bytes(count: int, drawn: random.Random) -> Iterator[Case]:
    """The committed configurations with accidents in their bytes."""
    contents = [file.read_bytes() for file in FILES]
    for number in range(count):
        yield configured("torn bytes", torn(contents[number % len(contents)], drawn, contents))


LINEAR = CONFIGS.joinpath("linear.yaml").read_text()
HUGE = 100_000_000  # bytes; of those, so few as one may read
PLACES = [
    *("{}", "name: {}", "name: x\n{}: 1", "data: {}", "data: {{name: points, x: {}, y: [[1.0]]}}"),
    *("data: {{name: points, x: [{0}], y: [{0}]}}", "model: {}", "model: {{name: {}}}"),
    *("model: {{name: linear, weight: {}}}", "model: {{name: mlp, widths: {}}}"),
    *("model: {{name: mlp, activation: {}}}", "model: {{name: mlp, activation: {{name: {}}}}}"),
    *("model: {{name: mlp, init: {{hidden: {}}}}}", "loss: {}", "loss: {{name: mse, weight: {}}}"),
    *("loss: {{name: cross_entropy, weight: {}}}", "optimizer: {}", "metrics: {}", "stop: {}"),
    *("optimizer: {{name: adam, lr: 0.1, betas: {}}}", "optimizer: {{name: {}, lr: 1}}"),
    *("schedule: {{name: MultiStepLR, milestones: {}}}", "monitor: {{include: {}}}", "device: {}"),
    *("data: {{name: csv, file: data/norris.csv, x: {}, y: [y]}}", "seed: {}"),
]


def bombs(count: int, drawn: random.Random) -> Iterator[Case]:
    """Configurations that are small to write and large to read, or just large."""
    made = [
        ("aliases", lambda n: laughs(drawn.randint(2, 12), min(n, 30))),
        ("an anchor of a long word", lambda n: f"[&a '{'x' * n}'{', *a' * min(n, 60_000)}]"),
        ("a ladder of aliases", lambda n: ladder(min(n, 10_000))),
        ("deep lists", lambda n: "[" * n + "]" * n),
        ("deep lists, open", lambda n: "[" * n),
        ("deep sections", lambda n: "{a: " * n + "1" + "}" * n),
        ("deep dashes", lambda n: "\n  " + "- " * n + "1"),
        ("deep questions", lambda n: "\n  " + "? " * n + "1"),
        ("deep blocks", lambda n: "".join(f"\n{' ' * i}a:" for i in range(1, min(n, 1200)))),
        ("deep quotes", lambda n: "'" * n),
        ("a long list", lambda n: f"[{'a, ' * n}]"),
        ("a long list of numbers", lambda n: f"[{'1, ' * n}]"),
        ("a long list of rows", lambda n: f"[{'[1.0], ' * n}]"),
        ("a long list of anchors", lambda n: f"[{''.join(f'&a{i} 1, ' for i in range(n))}]"),
        ("a long list of tags", lambda n: f"[{'!!int 1, ' * n}]"),
        ("a long list of lists", lambda n: f"[{'[], ' * n}]"),
        ("many keys", lambda n: "{" + "".join(f"k{i}: 1, " for i in range(n)) + "}"),
        ("many keys alike", lambda n: "{" + "a: 1, " * n + "}"),
        ("many sections", lambda n: "{" + "".join(f"k{i}: {{}}, " for i in range(n)) + "}"),
        ("a long word", lambda n: "x" * n),
        ("long words", lambda n: "x " * n),
        ("a long quotation", lambda n: '"' + "\\u00e9" * n + '"'),
        ("a long comment", lambda n: "1 #" + "x" * n),
        ("a long name with a colon", lambda n: "'" + "x" * n + ":y'"),
        ("a long number", lambda n: "9" * n),
        ("a long hexadecimal", lambda n: "0x" + "f" * n),
        ("a long fraction", lambda n: "0." + "1" * n),
        ("a long exponent", lambda n: "1e" + "9" * n),
        ("a long timestamp", lambda n: "2001-12-14 " + "1:" * n),
        ("a long key", lambda n: "{" + "k" * n + ": 1}"),
        ("a long block", lambda n: "|\n" + "  line\n" * n),
        ("blank lines", lambda n: "\n" * n + "1"),
        ("blanks", lambda n: " " * n + "1"),
        ("many documents", lambda n: "1\n" + "---\n" * n),
        ("dots of a name", lambda n: "a" + ".a" * n + ":b"),
    ]
    sizes = (10, 33, 100, 999, 10_000, 50_000, 99_000, 160_000, 330_000, 990_000)
    for number in range(count):
        if number % 20 == 19:  # what is longer than any configuration
            piece = drawn.choice((b"x", b" ", b"\n", b"[", b"a: 1\n", b"#", b"'", b"\x00", b"\xff"))
            before = drawn.choice((b"name: ", b"", b"data: ["))
            lines = {"config.yaml": _long(before, piece)}
            yield Case("a line of 100 MB", lines)
            continue
        name, make = drawn.choice(made)
        text, size = "", drawn.choice(sizes)
        place = drawn.choice(PLACES)
        while not text or len(text) > 990_000:
            text, size = place.format(make(size)), size // 2
        if drawn.randrange(2) and not text.startswith(("[", "{", "1", "'", "&")):
            lines = [line for line in LINEAR.splitlines() if line[:4] != text[:4]]
            text = "\n".join([*lines, text])
        yield configured(f"bomb: {name}", text[:999_999])


def _long(before: bytes, piece: bytes) -> Make:
    return lambda path: path.write_bytes(before + piece * (HUGE // len(piece)))


def laughs(fan: int, levels: int) -> str:
    """A list of lists of lists, each named and repeated: fan to the power of the levels."""
    lines = [f"&a0 [{', '.join('1' * fan)}]"]
    lines += [f"&a{i} [{', '.join([f'*a{i - 1}'] * fan)}]" for i in range(1, levels)]
    return f"[{', '.join(lines)}]"


def ladder(levels: int) -> str:
    """A list of which each item holds the one before."""
    return f"[&a0 1, {', '.join(f'&a{i} [*a{i - 1}]' for i in range(1, levels))}]"


SIZES = [
    ("linear", "data={{name: circles, samples: {}}}"),
    ("linear", "data={{name: moons, samples: {}}}"),
    ("linear", "data={{name: blobs, samples: {}, centers: {}, features: {}}}"),
    ("linear", "data={{name: blobs, samples: 10, centers: 2, features: {}}}"),
    ("adding_lstm", "data={{name: adding_problem, samples: {}, length: {}}}"),
    ("adding_lstm", "data={{name: adding_problem, length: {}}}"),
    ("adding_lstm", "data={{name: copy_memory, samples: {}, delay: {}, copied: {}}}"),
    ("charlm_transformer", "data={{name: copy_memory, samples: 9, symbols: {}}}"),
    ("charlm_transformer", "data={{name: text, file: data/norris.csv, context: {}, stride: {}}}"),
    ("digits_mlp", "model={{name: mlp, depth: {}, width: {}}}"),
    ("digits_mlp", "model={{name: mlp, widths: [{}, {}]}}"),
    ("digits_mlp", "model={{name: mlp, depth: {}, width: 8, norm: layer, residual: true}}"),
    ("digits_cnn", "model={{name: cnn, channels: [{}, {}]}}"),
    ("digits_cnn", "model={{name: cnn, blocks: {}, channels: [4]}}"),
    ("digits_cnn", "model={{name: cnn, kind: lenet, channels: [{}, {}]}}"),
    ("adding_lstm", "model={{name: rnn, kind: lstm, hidden_size: {}, layers: {}}}"),
    ("adding_lstm", "model={{name: rnn, layers: {}, hidden_size: 2}}"),
    ("charlm_transformer", "model={{name: transformer, layers: {}, width: {}, heads: {}}}"),
    ("charlm_transformer", "model={{name: transformer, layers: {}, width: 4}}"),
    ("autoencoder_digits", "model={{name: autoencoder, widths: [{}, {}]}}"),
    ("linear", "data.batch_size={}"),
    ("linear", "accumulate_steps={}"),
    ("linear", "schedule={{name: StepLR, step_size: {}, warmup_steps: {}}}"),
    ("linear", "schedule={{name: OneCycleLR, max_lr: 1, total_steps: {}}}"),
    ("linear", "optimizer={{name: lbfgs, lr: 1, history_size: {}, max_iter: {}}}"),
    ("digits_mlp", "model={{name: mlp, activation: {{name: softmax, dim: {}}}}}"),
    ("digits_mlp", "model={{name: mlp, activation: {{name: prelu, num_parameters: {}}}}}"),
    ("digits_mlp", "model={{name: mlp, width: {}, init: {{hidden: orthogonal_}}}}"),
    ("digits_mlp", "model={{name: mlp, width: {}, init: {{hidden: {{name: sparse, sparsity: 0}}}}}}"),  # noqa: E501
]  # fmt: skip


def sizes(count: int, drawn: random.Random) -> Iterator[Case]:
    """Configurations that ask for large things: small ones are built, others refused unbuilt."""
    for number in range(count):
        base, place = SIZES[number % len(SIZES)]
        large = [drawn.choice((10**9, 10**12, 10**6, 10**5, 10**4, 10**3, 8, 2)) for _ in range(4)]
        text = CONFIGS.joinpath(f"{base}.yaml").read_bytes()
        yield Case("sizes", {"config.yaml": holding(text)}, (place.format(*large),))


def hostile_configs(count: int, seed: int) -> Iterator[Case]:
    """So many cases of all kinds, the same for the same seed."""
    drawn = random.Random(seed)
    yield from every_type_in_every_place(count * 9 // 20, drawn)
    yield from torn_bytes(count * 5 // 20, drawn)
    yield from bombs(count * 2 // 20, drawn)
    yield from sizes(count // 20, drawn)
    rest = count - sum(count * part // 20 for part in (9, 5, 2, 1))
    for text in drawn_by_hypothesis(trees(), rest, seed):
        yield configured("by hypothesis", text)
