"""Reads a configuration's YAML (1.2 core schema) and remembers where each key and value stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from trainer.config.problem import MAX_FOUND, ConfigError, Path, Place, Problem, shown
from trainer.config.scalars import plain_scalar

MAX_DEPTH = 32
MAX_NODES = 30_000  # of the tree with its aliases expanded: more belong in a file of data
TOO_MANY = f"more than {MAX_NODES:,} values"

PlaceOf = Callable[[int, int], Place]  # line and column from 0 → the place
Mark = tuple[PlaceOf, int, int]  # a place that is made when asked for: few ever are


class _Unreadable(Exception):
    """A mistake after which nothing more can be read."""

    def __init__(self, place: Place, path: Path, message: str) -> None:
        super().__init__(message)
        self.place = place
        self.path = path


class Document:
    """A tree of plain values, the place of each key and value in it, and the faults met in reading.

    A tree with faults holds what could be read; the faults are told with those of its values.
    """

    def __init__(self, name: str, text: str) -> None:
        """Parses `text`; raises ConfigError, naming `name`, where it is not YAML or no section."""
        self.name = name
        self.faults: list[tuple[Place, Problem]] = []
        self._keys: dict[Path, Mark] = {}
        self._values: dict[Path, Mark] = {}
        lines = text.splitlines()

        def place_of(line: int, column: int) -> Place:
            if line >= len(lines) > 0:  # the end of the text
                line, column = len(lines) - 1, len(lines[-1])
            return Place(name, line + 1, column + 1, lines[line] if lines else "")

        try:
            tree = self._read(text, (), place_of)
        except _Unreadable as error:
            raise ConfigError([error.place.show(error.path, str(error))]) from None
        if tree is None:
            raise ConfigError(
                [f"{name}: the file is empty; see configs/linear.yaml for an example"]
            )
        if not isinstance(tree, dict):
            message = f"expected sections (key: value), got {shown(tree)}"
            raise ConfigError([self.place(()).show((), message)])
        self.tree: dict[str, Any] = tree

    def place(self, path: Path, at_key: bool = False) -> Place:
        """The place of a path, or of the nearest section above it that stands in the source."""
        for length in range(len(path), 0, -1):
            above = at_key or length < len(path)
            for known in (self._keys, self._values) if above else (self._values,):
                if path[:length] in known:
                    return _made(known[path[:length]])
        return Place(self.name) if path or () not in self._values else _made(self._values[()])

    def override(self, text: str) -> None:
        """Applies `section.key=value`, the value read by the rules of the file."""
        told = text if len(text) <= 200 else f"{text[:197]}..."
        place = Place(f"command line: {told if told.isprintable() else repr(told)}")

        def place_of(line: int, column: int) -> Place:
            return place

        keys_text, equals, value_text = text.partition("=")
        keys = tuple(keys_text.split("."))
        if not equals or not all(keys) or len(keys) > MAX_DEPTH:
            self._fault(place, (), "expected section.key=value, such as optimizer.lr=1e-2")
            return
        section = self.tree
        for depth, key in enumerate(keys[:-1], start=1):
            below = section.setdefault(key, {})
            if not isinstance(below, dict):
                got = f"is {shown(below)}, not a section with keys"
                self._fault(place, keys[:depth], got)
                return
            self._keys.setdefault(keys[:depth], (place_of, 0, 0))
            section = below
        if keys[-1] in section:
            for known in (self._keys, self._values):
                for old in [path for path in known if path[: len(keys)] == keys]:
                    del known[old]
        self._keys[keys] = (place_of, 0, 0)
        try:
            section[keys[-1]] = self._read(value_text, keys, place_of)
        except _Unreadable as error:
            self._fault(place, error.path or keys, str(error))

    def _read(self, text: str, path: Path, place_of: PlaceOf) -> Any:
        node, tagged = _compose(text, place_of)
        if node is None:
            self._values[path] = place_of, 0, 0
            return None
        return _Walk(self, place_of, tagged).value(node, path)

    def _fault(self, place: Place, path: Path, message: str) -> None:
        if len(self.faults) < MAX_FOUND:
            self.faults.append((place, Problem(path, message)))


def _made(mark: Mark) -> Place:
    place_of, line, column = mark
    return place_of(line, column)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes without guessing tags: what a plain word means is for `plain_scalar` to say."""

    def resolve(self, kind: object, value: object, implicit: object) -> str:
        return ""


def _compose(text: str, place_of: PlaceOf) -> tuple[yaml.Node | None, set[int]]:
    """The root node, and the offsets of nodes with a written tag; raises _Unreadable."""
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable:
        before = (text[: unprintable.start()] + "^").splitlines()
        place = place_of(len(before) - 1, len(before[-1]) - 1)
        message = f"not valid YAML: the character {unprintable.group()!r} is not allowed"
        raise _Unreadable(place, (), message)
    tagged = set()
    depth = nodes = 0
    try:
        # Bounded on the flat stream of events: composing recurses, and takes memory.
        for event in yaml.parse(text, Loader=_Loader):
            mark: Any = event.start_mark
            if getattr(event, "tag", None) is not None:
                tagged.add(mark.index)
            nodes += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                message = f"nested more than {MAX_DEPTH} levels deep"
                raise _Unreadable(place_of(mark.line, mark.column), (), message)
            if nodes > MAX_NODES:
                raise _Unreadable(place_of(mark.line, mark.column), (), TOO_MANY)
        return yaml.compose(text, Loader=_Loader), tagged
    except yaml.MarkedYAMLError as error:
        message = ", ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        place = place_of(mark.line, mark.column)
        raise _Unreadable(place, (), f"not valid YAML: {message}") from None


class _Walk:
    """Turns composed nodes into plain values; notes places and faults in the document."""

    def __init__(self, document: Document, place_of: PlaceOf, tagged: set[int]) -> None:
        self.document = document
        self.place_of = place_of
        self.tagged = tagged
        self.open: set[int] = set()  # nodes being walked: an alias to one of them is a cycle
        self.nodes = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        mark = self.place_of, node.start_mark.line, node.start_mark.column
        self.document._values[path] = mark
        self.nodes += 1
        if id(node) in self.open:
            raise _Unreadable(_made(mark), path, "an alias refers to the value it stands in")
        if self.nodes > MAX_NODES:  # by aliases
            raise _Unreadable(_made(mark), path, TOO_MANY)
        if len(self.open) > MAX_DEPTH:  # by aliases of aliases
            raise _Unreadable(_made(mark), (), f"nested more than {MAX_DEPTH} levels deep")
        if node.start_mark.index in self.tagged:
            message = "tags are not supported; write the value alone"
            self.document._fault(_made(mark), path, message)
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._section(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
            if isinstance(node, yaml.ScalarNode) and not node.style:
                return plain_scalar(node.value)
            return node.value  # quoted or a block
        except ValueError as error:
            self.document._fault(_made(mark), path, str(error))
        finally:
            self.open.remove(id(node))

    def _section(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        section: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = self.place_of, key_node.start_mark.line, key_node.start_mark.column
            if not isinstance(key_node, yaml.ScalarNode):
                message = "a key must be a word, not a list or a section"
                raise _Unreadable(_made(mark), path, message)
            key: str = key_node.value
            if key == "<<" and not key_node.style:
                message = "YAML 1.2 has no '<<'; write the keys out"
                raise _Unreadable(_made(mark), path, message)
            if key in section:
                row = _made(self.document._keys[(*path, key)]).row
                first = f" (first at line {row})" if row else ""
                self.document._fault(_made(mark), (*path, key), f"the key is set twice{first}")
                continue
            self.document._keys[(*path, key)] = mark
            section[key] = self.value(value_node, (*path, key))
        return section
