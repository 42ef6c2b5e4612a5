"""Bytes and time per event, beside torch's SummaryWriter with the same scalars and histograms.

    python scripts/benchmark_events.py [--steps 100000]

The records are those of a made-up training that converges; times are medians over rounds that take
turns, with what the training thread spends and what the whole process spends (the writing thread
holds the same interpreter lock, so both matter). The bytes are those of the whole folder.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from trainer.events import Events  # noqa: E402
from trainer.events.scalars import scalars  # noqa: E402
from trainer.record import BINS, SIGN, StepRecord, TensorTable  # noqa: E402

ROUNDS = 5


def made_records(steps: int, parameters: int, size: int, histogram_every: int) -> list[StepRecord]:
    """Records of `steps` steps with the numbers that float32 gradients of such sizes have."""
    random = np.random.default_rng(0)
    names = tuple(f"encoder.layers.{index}.weight" for index in range(parameters))
    if parameters == 2:
        names = ("W", "b")
    values = random.normal(size=(parameters, size)) * 10.0 ** random.uniform(
        -4, -1, (parameters, 1)
    )
    records = []
    for step in range(steps):
        now = (values * np.exp(-step / 20_000) * (1 + 0.1 * random.normal())).astype(np.float32)
        magnitude = np.abs(now.astype(np.float64))
        moments = np.zeros((parameters, 7))
        moments[:, 0] = size
        moments[:, 1], moments[:, 2] = np.sqrt((magnitude**2).sum(axis=1)), magnitude.sum(axis=1)
        moments[:, 3] = magnitude.max(axis=1)
        histograms = None
        if histogram_every and step % histogram_every == 0:
            bins = (np.abs(now).view(np.uint32) >> 22) + np.where(now < 0, SIGN, 0)
            rows = np.arange(parameters)[:, None] * BINS
            histograms = np.bincount((bins + rows).ravel(), minlength=parameters * BINS)
            histograms = histograms.reshape(parameters, BINS).astype(np.int64)
        rms = 1 + 1e-6 * step + random.random(parameters) * 1e-6
        ratio = 0.1 * moments[:, 1] / np.sqrt(size) / rms
        norm = float(np.sqrt((moments[:, 1] ** 2).sum()))
        records.append(
            StepRecord(
                step=step, wall_time=1.7e9 + step * 2e-4 * (1 + 0.1 * random.random()),
                loss=float(np.float32(norm**2 / 2)), learning_rate=0.1, gradient_norm=norm,
                clip_coefficient=float("nan"), step_ms=float(0.2 + 0.02 * random.random()),
                monitor_ms=float(0.05 + 0.01 * random.random()),
                gradients=TensorTable(names, moments, histograms),
                carried_gradients=0.0, optimizer="SGD", shapes=((size,),) * parameters,
                dtypes=("float32",) * parameters, unchanged_fraction=np.zeros(parameters),
                parameters=names, parameter_rms=rms, update_ratio=ratio,
            )
        )  # fmt: skip
    return records


def with_events(folder: Path, records: list[StepRecord]) -> float:
    """The median seconds of a record's call, the thread not waited for."""
    events = Events(folder)
    taken = []
    for record in records:
        started = time.perf_counter()
        events.write(record)
        taken.append(time.perf_counter() - started)
    events.close()
    return statistics.median(taken)


def with_summary_writer(folder: Path, records: list[StepRecord]) -> float:
    """The same scalars and, where the record has them, histograms by add_histogram_raw."""
    from torch.utils.tensorboard import SummaryWriter

    from trainer.events.histograms import Filled, log10_buckets, signed_buckets

    prepared = []
    for record in records:
        table = scalars([record])
        shown = [
            (tag, float(value))
            for tag, value, is_shown in zip(
                table.tags, table.values[0], table.shown[0], strict=True
            )
            if is_shown
        ]
        made = []
        if record.gradients.histograms is not None:
            for group, buckets in (("gradient", signed_buckets), ("gradient_log10", log10_buckets)):
                rows = buckets(Filled.of([record.gradients])).each()
                made += [
                    (f"{group}/{n}", r) for n, r in zip(record.gradients.names, rows, strict=True)
                ]
        prepared.append((record.step, record.wall_time, shown, made))
    writer = SummaryWriter(str(folder))
    taken = []
    for step, wall_time, shown, made in prepared:
        started = time.perf_counter()
        for tag, value in shown:
            writer.add_scalar(tag, value, step, wall_time)
        for tag, rows in made:
            writer.add_histogram_raw(
                tag, rows[0, 0], rows[-1, 1], rows[:, 2].sum(), 0.0, 0.0,
                rows[:, 1], rows[:, 2], step, wall_time,
            )  # fmt: skip
        taken.append(time.perf_counter() - started)
    writer.close()
    return statistics.median(taken)


def measure(
    write: Callable[[Path, list[StepRecord]], float], records: list[StepRecord]
) -> tuple[float, float, int]:
    """Microseconds a record of the calling thread and of the process's CPU, and bytes written."""
    with tempfile.TemporaryDirectory() as folder:
        cpu = time.process_time()
        calls = write(Path(folder), records)
        cpu = time.process_time() - cpu
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return 1e6 * calls, 1e6 * cpu / len(records), size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100_000, help="of the linear model")
    steps = parser.parse_args().steps
    writers = {"trainer.events": with_events, "SummaryWriter": with_summary_writer}

    print(f"bytes of a run of {steps:,} observed steps of a linear model (2 parameters)")
    records = made_records(steps, 2, 1, 0)
    sizes = {name: measure(write, records)[2] for name, write in writers.items()}
    logged = made_records(steps, 2, 1, 10)
    sizes["trainer.events, histograms every 10 steps"] = measure(with_events, logged)[2]
    for name, size in sizes.items():
        ratio = size / sizes["SummaryWriter"]
        print(f"  {name:42} {size:>12,}   {ratio:.3f}   {size / steps:.0f} a step")

    print("a record: median microseconds of the calls, microseconds of CPU of all threads, bytes")
    for parameters in (2, 22, 62):
        for every in (0, 1):
            count = 300 if every else 2000
            records = made_records(count, parameters, 1 if parameters == 2 else 2000, every)
            rounds: dict[str, list[tuple[float, float, int]]] = {name: [] for name in writers}
            for _ in range(ROUNDS):
                for name, write in writers.items():
                    rounds[name].append(measure(write, records))
            for name, results in rounds.items():
                calls, cpu = (statistics.median(r[k] for r in results) for k in (0, 1))
                what = "scalars and histograms" if every else "scalars"
                size = results[0][2] / count
                print(
                    f"  {parameters:3} parameters, {what:23} {name:15}"
                    f" calls {calls:9.1f}   CPU {cpu:9.1f}   bytes {size:8.0f}"
                )


if __name__ == "__main__":
    main()
