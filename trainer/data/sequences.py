"""The two classic tests of gradients over long sequences, drawn from a seed."""

from __future__ import annotations

import torch

from trainer import memory
from trainer.config.data_sections import AddingProblem, CopyMemory
from trainer.data.table import Table


def adding_problem(section: AddingProblem, seed: int) -> Table:
    """x (N, length, 2): a number from 0 to 1 and a mark, 1 at two steps; y (N, 1): the marked sum.

    One step is marked in the first half and one in the second. Answering 1 always has a mean
    squared error of 2/12 = 0.167, the variance of the sum.

    Source: Hochreiter and Schmidhuber, Long Short-Term Memory, Neural Computation 9 (1997), section
    5.4; in this form: Le, Jaitly and Hinton, A Simple Way to Initialize Recurrent Networks of
    Rectified Linear Units, arXiv:1504.00941 (2015), and Arjovsky, Shah and Bengio (2016).
    """
    memory.need(
        48 * section.samples * section.length,
        f"samples: {section.samples:,} sequences of {section.length:,} steps",
    )
    generator = torch.Generator().manual_seed(seed)
    samples, length = section.samples, section.length
    numbers = torch.rand(samples, length, dtype=torch.float64, generator=generator)
    half = length // 2
    first = torch.randint(0, half, (samples,), generator=generator)
    second = torch.randint(half, length, (samples,), generator=generator)
    marks = torch.zeros_like(numbers)
    rows = torch.arange(samples)
    marks[rows, first] = marks[rows, second] = 1.0
    total = numbers[rows, first] + numbers[rows, second]
    return Table(torch.stack([numbers, marks], dim=2), total[:, None])


def copy_memory(section: CopyMemory, seed: int) -> Table:
    """x (N, T) tokens: symbols, blanks, a signal, blanks; y (N, T): blanks, and the symbols again.

    T is delay + 2·copied. Token `symbols` is the blank, `symbols + 1` the signal, after which the
    copied symbols are due; the signal is no target, so there are symbols + 1 classes. Without a
    memory the best mean cross-entropy is copied·ln(symbols)/T, for 10 of 8 symbols 10 ln 8 / (delay
    + 20): blanks for certain, symbols by guessing.

    Source: Hochreiter and Schmidhuber (1997); in this form: Arjovsky, Shah and Bengio, Unitary
    Evolution Recurrent Neural Networks, ICML (2016), section 4.1.
    """
    steps = section.delay + 2 * section.copied
    memory.need(
        48 * section.samples * steps, f"samples: {section.samples:,} sequences of {steps:,} steps"
    )
    generator = torch.Generator().manual_seed(seed)
    samples, copied, blank = section.samples, section.copied, section.symbols
    content = torch.randint(0, section.symbols, (samples, copied), generator=generator)
    x = torch.full((samples, steps), blank)
    y = x.clone()
    x[:, :copied] = content
    x[:, copied + section.delay - 1] = blank + 1
    y[:, -copied:] = content
    return Table(x, y, classes=blank + 1, vocabulary=blank + 2)
