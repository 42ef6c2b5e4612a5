"""How a question is read from a request, and how an answer is sent."""

from __future__ import annotations

import ctypes
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tensorboard.backend import http_util
from werkzeug import Request, Response

if TYPE_CHECKING:  # imported at the first question
    from trainer.plugin.grid import Fold

TYPES = {".js": "application/javascript", ".css": "text/css"}  # of the files of the page
LARGEST = (1 << 31) - 1  # number that can be asked for
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h

Application = Callable[..., Iterable[bytes]]  # of WSGI
T = TypeVar("T")


class Refused(Exception):
    """A question that has no answer, and the status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def measure(request: Request) -> str:
    """The name of the statistic that is asked for."""
    from trainer.plugin.measures import MEASURES

    name = request.args.get("statistic", "activation_gradient")
    if name not in MEASURES:
        raise Refused(400, f"statistic: expected one of {', '.join(MEASURES)}")
    return name


def table(request: Request) -> int:
    """Where the histograms of its gradients are."""
    from trainer.plugin.measures import MEASURES

    return MEASURES[measure(request)].table


def fold(request: Request) -> Fold:
    """Which modules are asked for as one row."""
    from trainer.plugin.grid import Fold

    return Fold(whole(request, "fold", 0), frozenset(request.args.getlist("turned")))


def relative(request: Request) -> bool:
    """Whether values over those of the last row are asked for."""
    return request.args.get("relative") == "true"


def whole(request: Request, name: str, default: T) -> int | T:
    """A whole number, at most LARGEST in size; the default where it is not given."""
    given = request.args.get(name)
    if given is None:
        return default
    try:
        return min(max(int(given), -LARGEST), LARGEST)
    except ValueError:
        raise Refused(400, f"{name}: expected a whole number") from None


def evenly(steps: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, evenly spread, the first and the last among them."""
    if len(steps) <= most:
        return steps[:]
    places = np.linspace(0, len(steps) - 1, most).astype(int)
    return [steps[place] for place in places]


def packed(about: Any, *matrices: NDArray[np.float64]) -> bytes:
    """JSON, filled up with blanks to a multiple of 8 bytes, after its length in 8 bytes; then the
    numbers of the matrices row by row, as float64. All is little-endian.

    Text would be compressed by TensorBoard, which takes longer than to send it."""
    text = json.dumps(about, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    numbers = [np.ascontiguousarray(matrix, "<f8").tobytes() for matrix in matrices]
    return b"".join([len(text).to_bytes(8, "little"), text, *numbers])


def number(value: float) -> float | str | None:
    """The value as JSON has it: null where nothing was observed, a text where it is not finite."""
    if math.isfinite(value):
        return None if value < 0 else value
    return str(value)


def _respond(
    request: Request, content: str | bytes, content_type: str, code: int = 200
) -> Response:
    response: Response = http_util.Respond(request, content, content_type, code=code)
    return response


@contextmanager
def _given_back() -> Iterator[None]:
    """Has memory that is freed meanwhile returned to the system. glibc would keep what a thread
    has used, the more the larger its arrays were: thresholds that are set stay as they are."""
    malloc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    known = hasattr(malloc, "mallopt") and hasattr(malloc, "malloc_trim")
    if known:
        for threshold in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            malloc.mallopt(threshold, 128 << 10)
    try:
        yield
    finally:
        if known:
            malloc.malloc_trim(0)


def answer(ask: Callable[[Request], Any]) -> Application:
    """A route that answers with JSON, or bytes as they are, or with a line that says why not."""

    @Request.application
    def application(request: Request) -> Response:
        if request.method != "GET":
            return _respond(request, "only GET is answered", "text/plain", 405)
        try:
            with _given_back():
                content = ask(request)
        except Refused as error:
            return _respond(request, str(error), "text/plain", error.status)
        if isinstance(content, bytes):
            return _respond(request, content, "application/octet-stream")
        return _respond(request, json.dumps(content, allow_nan=False), "application/json")

    return application


def file(path: Path) -> Application:
    """A route that answers with a file of the page."""

    @Request.application
    def application(request: Request) -> Response:
        content = path.read_text(encoding="utf-8")
        return _respond(request, content, TYPES[path.suffix])

    return application
