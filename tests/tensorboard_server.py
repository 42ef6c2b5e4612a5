"""A real TensorBoard that tests ask by HTTP, as a browser does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WAIT_SECONDS = 60  # for what takes a second or two on a machine that is not crowded


def unpacked(content: bytes) -> dict[str, Any]:
    """What `trainer.plugin.questions.packed` made bytes of: `low` and `high` are (columns, rows);
    None in place of a second matrix that is the same."""
    start = 8 + int.from_bytes(content[:8], "little")
    about = json.loads(content[8:start])
    shape = -1, len(about["first"]), len(about["rows"])
    numbers = np.frombuffer(content[start:], "<f8")
    matrices = list(numbers.reshape(shape)) if numbers.size else [numbers.reshape(shape[1:])]
    return about | {"low": matrices[0], "high": matrices[1] if len(matrices) > 1 else None}


class Server:
    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, route: str, post: object = None, **query: str) -> Any:
        url = f"{self.address}/data/{route}?{urllib.parse.urlencode(query)}"
        data = None if post is None else json.dumps(post).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as response:
            content = response.read()
        return json.loads(content) if content[:1] in (b"{", b"[") else unpacked(content)

    def until(self, enough: Callable[[Any], bool], route: str, post: object = None, **query: str):
        """The answer of the route, asked until it is as wanted or time is up."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                answer = self.get(route, post, **query)
            except urllib.error.HTTPError as error:
                answer = f"status {error.code}"
            if not isinstance(answer, str) and enough(answer) or time.monotonic() > end:
                return answer
            time.sleep(0.2)


WITHOUT = (
    "from tensorboard import default, main;default.get_dynamic_plugins = lambda: [];main.run_main()"
)


@contextmanager
def serve(logdir: Path, *flags: str, plugin: bool = True) -> Iterator[Server]:
    """TensorBoard on a free port, looking at the folder every second; without `plugin`, with no
    plugin but its own."""
    started = ["-m", "tensorboard.main"] if plugin else ["-c", WITHOUT]
    command = [sys.executable, *started, "--logdir", str(logdir), "--port=0",
               "--reload_interval=1", "--host=127.0.0.1", *flags]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                yield Server(found[0])
                break
        else:
            pytest.fail("TensorBoard did not start")
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def session_groups(*tags: str) -> dict[str, Any]:
    """What the HPARAMS tab asks for: all sessions, with the last values of these tags."""
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    metrics = [{"metric": {"group": "", "tag": tag}} for tag in tags]
    return {"experimentName": "", "allowedStatuses": statuses, "colParams": metrics,
            "startIndex": 0, "sliceSize": 100}  # fmt: skip
