"""How long the statistics take: medians, in turn in one process, beside what torch and numpy need.

    python scripts/benchmark_statistics.py [--rounds 31] [--large]

`all` is what an observed step pays: moments and histograms of the gradients, the copy of the
parameters before the step and their change after it. `norms` is torch._foreach_norm of the same
gradients, the least that any monitor pays; `numpy` is np.histogram of them with 64 bins.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numba import njit

from trainer.statistics import Snapshot, signal, summarize, threads


def mlp() -> Iterator[tuple[int, ...]]:
    widths = [784, *[256] * 10, 10]
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        yield from ((outputs, inputs), (outputs,))


def gpt() -> Iterator[tuple[int, ...]]:
    width, vocabulary = 128, 65
    yield from ((vocabulary, width), (64, width))
    for _ in range(4):
        yield from ((width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,))
        yield from ((width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width))
        yield (width,)
    yield from ((vocabulary, width), (vocabulary,))


def resnet18() -> Iterator[tuple[int, ...]]:
    yield from ((64, 3, 3, 3), (64,), (64,))
    before = 64
    for width in (64, 64, 128, 128, 256, 256, 512, 512):
        for inputs in (before, width):
            yield from ((width, inputs, 3, 3), (width,), (width,))
        if before != width:
            yield from ((width, before, 1, 1), (width,), (width,))
        before = width
    yield from ((10, 512), (10,))


WORKLOADS: dict[str, list[tuple[int, ...]]] = {
    "linear": [(1,), (1,)],
    "mlp": list(mlp()),
    "gpt": list(gpt()),
    "resnet18": list(resnet18()),
    "2000 small": [(16, 16)] * 2000,
}


@njit
def one_increment_a_value(bits, counts):
    for i in range(bits.size):
        counts[bits[i] >> 22] += 1


def medians(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def measure(shapes: list[tuple[int, ...]], rounds: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    gradients = [1e-3 * torch.randn(shape, generator=generator) for shape in shapes]
    parameters = [torch.randn(shape, generator=generator) for shape in shapes]
    snapshot = Snapshot()
    snapshot.take(parameters)
    arrays = [gradient.numpy() for gradient in gradients]
    contestants: dict[str, Callable[[], object]] = {
        "moments": lambda: summarize(gradients, histograms=False),
        "histograms": lambda: summarize(gradients, histograms=True),
        "snapshot": lambda: snapshot.take(parameters),
        "changes": lambda: snapshot.changes(parameters),
        "norms": lambda: torch._foreach_norm(gradients),
    }
    result = medians(contestants, rounds)
    slow = {"numpy": lambda: [np.histogram(array, bins=64) for array in arrays]}
    result |= medians(slow, max(1, rounds // 10))
    result["all"] = result["histograms"] + result["snapshot"] + result["changes"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--large", action="store_true", help="also one tensor of 100 M values")
    arguments = parser.parse_args()
    available = torch.get_num_threads()
    workloads = dict(WORKLOADS)
    if arguments.large:
        workloads["100 M"] = [(100_000_000,)]
    names = ("moments", "histograms", "snapshot", "changes", "all", "norms", "numpy")
    print("milliseconds".ljust(26), *(name.rjust(10) for name in names), "ns a value".rjust(11))
    for workload, shapes in workloads.items():
        values = sum(int(np.prod(shape)) for shape in shapes)
        for count in sorted({1, available}):
            torch.set_num_threads(count)
            result = measure(shapes, arguments.rounds)
            label = f"{workload}, {count} thread{'s' * (count > 1)}"
            each = f"{1e6 * result['all'] / values:11.3f}"
            print(label.ljust(26), *(f"{result[name]:10.3f}" for name in names), each)

    torch.set_num_threads(1)
    bits = (1e-3 * torch.randn(1 << 20)).view(torch.int32).numpy().view(np.uint32)
    counts = np.zeros(1024, np.int64)
    values = torch.from_numpy(bits.view(np.float32))
    result = medians(
        {
            "simple": lambda: one_increment_a_value(bits, counts),
            "moments": lambda: threads.summarize([values], False),
            "histograms": lambda: threads.summarize([values], True),
        },
        arguments.rounds,
    )
    size = values.numel()
    counting = result["histograms"] - result["moments"]
    print(f"\none core: counting bins {1e6 * counting / size:.3f} ns a value,", end=" ")
    print(f"moments {1e6 * result['moments'] / size:.3f},", end=" ")
    print(f"a loop with one increment a value {1e6 * result['simple'] / size:.3f}")

    print("\nsignal of an output, microseconds")
    torch.set_num_threads(available)
    for shape in ((64, 256), (12, 64, 512), (16, 64, 32, 32)):
        output = torch.randn(shape).relu()
        result = medians({"signal": lambda output=output: signal(output)}, arguments.rounds)
        print(f"{shape!s:26}{1e3 * result['signal']:10.1f}")


if __name__ == "__main__":
    main()
