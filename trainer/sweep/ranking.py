"""Which trial was best: all of them in a table, the diverged and the failed ones at its end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trainer import columns
from trainer.sweep.storage import Storage, objective

ABSENT = "–"
MAX_LOG_LINE = 100  # characters


def show(storage: Storage) -> bool:
    """Prints the table; whether every trial came to an end."""
    keys = [axis.key for axis in storage.axes]
    results = {index: storage.result(index) for index in storage.trials()}
    ended = [result for result in results.values() if result is not None]
    metrics = list(dict.fromkeys(name for result in ended for name in result["metrics"]))
    validated = any(result["best_validation_loss"] is not None for result in ended)
    rows: list[tuple[tuple[int, float, int], list[str]]] = []
    for index, trial in storage.trials().items():
        cells = [f"{index:04d}", *(str(trial.params.get(key, ABSENT)) for key in keys)]
        result = results[index]
        if result is None:
            why = _failure(storage.log(index), trial.user_attrs["status"])
            cells += [ABSENT, *(ABSENT for _ in metrics), ABSENT, why, ABSENT]
            rows.append(((2, 0.0, index), cells))
            continue
        loss = objective(result)
        diverged = not math.isfinite(loss)
        cells += [ABSENT if diverged else f"{loss:.8g}"]
        for name in metrics:
            value = result["metrics"].get(name)
            cells.append(ABSENT if diverged or value is None else f"{value:.4g}")
        cells += [str(result["steps"]), "diverged" if diverged else result["reason"]]
        cells.append(alarms(result["findings"]) or ABSENT)
        rows.append(((int(diverged), loss, index), cells))
    loss_title = "best validation loss" if validated else "cost"
    header = ["trial", *keys, loss_title, *metrics, "steps", "ended", "alarms"]
    columns.show(header, [cells for _, cells in sorted(rows)])
    return len(ended) == len(results)


def alarms(findings: list[dict[str, Any]]) -> str:
    """The verdicts of the findings that are alarms and have not ended, each once."""
    lasting = (f for f in findings if f["level"] != "info" and not f["resolved"])
    return ", ".join(dict.fromkeys(finding["verdict"] for finding in lasting))


def _failure(log: Path, status: int) -> str:
    """The line that tells why a run failed: a mistake is told first, an exception ends the log."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    line = lines[0 if status == 2 else -1]
    return f"failed (status {status}): {line[:MAX_LOG_LINE]}"
