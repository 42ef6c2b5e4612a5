"""Is anything half-written in the folder of a run that has ended, however it ended?"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from trainer.checkpoints import checkpoint, listing
from trainer.events.reader import event_files


def half_written(folder: Path) -> Iterator[str]:
    """What is not whole there."""
    names = "*.tmp", "*.gone", f"checkpoints/{checkpoint.NEXT}"
    for path in (path for name in names for path in folder.rglob(name)):
        yield f"{path} is left"
    for path in listing.complete(folder / "checkpoints"):
        try:
            checkpoint.read(path)
        except checkpoint.Damaged as error:
            yield str(error)
    last = folder / "checkpoints" / "LAST"
    if last.exists() and not (last.parent / last.read_text().strip()).is_dir():
        yield "LAST names no checkpoint"
    for path in event_files(folder):
        if not _ends_in_a_whole_event(path):
            yield f"{path} ends within an event"
    for name in ("findings.jsonl", "result.json", "environment.json"):
        path = folder / name
        text = path.read_text() if path.exists() else ""
        try:
            for part in text.splitlines() if name == "findings.jsonl" else [text] if text else []:
                json.loads(part)
        except ValueError as error:
            yield f"{path}: {error}"


def _ends_in_a_whole_event(path: Path) -> bool:
    """An event is its length in 8 bytes, a checksum in 4, itself, and a checksum in 4."""
    content, at = path.read_bytes(), 0
    while at + 8 <= len(content):
        at += 16 + struct.unpack_from("<Q", content, at)[0]
    return at == len(content)
