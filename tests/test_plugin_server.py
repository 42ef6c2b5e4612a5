"""The tab in a real TensorBoard, in both of its loading modes: no step is lost, no path escapes."""

from __future__ import annotations

import http.client
from pathlib import Path

import numpy as np
import pytest
from records_by_hand import deep, record
from tensorboard_server import serve
from test_plugin import write

from trainer.wire import PLUGIN

BLOCKS = 130  # TensorBoard's own choice would keep 100 of them, or 10
ESCAPES = [
    *("../backend.py", "..%2fbackend.py", "%2e%2e/%2e%2e/backend.py", "..\\backend.py"),
    *("static/index.js", "index.js/../../backend.py", "/etc/passwd"),
]


@pytest.mark.parametrize("fast", ["true", "false"])
def test_no_step_is_lost(tmp_path: Path, fast: str) -> None:
    write(tmp_path / "run", *([record(step, deep(1))] for step in range(BLOCKS)))
    write(tmp_path / "run", [record(step, deep(1, backward=0.5)) for step in range(100, 140)])
    with serve(tmp_path, f"--load_fast={fast}") as server:
        listing = server.until(lambda plugins: plugins[PLUGIN]["enabled"], "plugins_listing")
        assert listing[PLUGIN]["loading_mechanism"]["type"] == "IFRAME"
        route = f"plugin/{PLUGIN}/matrix"
        whole = server.until(lambda answer: answer["observed"] == 140, route, run="run")
        assert whole["first"] == list(range(140))
        first_layer = whole["low"][:, 0]
        assert np.array_equal(first_layer, [1.0] * 100 + [0.5] * 40)
        host, port = server.address.removeprefix("http://").split(":")
        for path in ESCAPES:
            connection = http.client.HTTPConnection(host, int(port))
            connection.request("GET", f"/data/plugin/{PLUGIN}/{path}")
            assert connection.getresponse().status == 404, path
            connection.close()
