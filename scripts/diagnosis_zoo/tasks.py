"""What the programs are fitted to: rows that scikit-learn ships, and rows drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional as F

from diagnosis_zoo.program import Task


def classes(x: object, y: object) -> Task:
    """A classification; the best constant prediction is how frequent the classes are."""
    rows, targets = torch.as_tensor(np.asarray(x), dtype=torch.float32), torch.as_tensor(y).long()
    share = torch.bincount(targets.flatten()).double() / targets.numel()
    entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
    return Task(rows, targets, cross_entropy, len(share), entropy)


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean over rows and, where there are some, positions."""
    return F.cross_entropy(prediction.flatten(0, -2), target.flatten())


def binary(task: Task) -> Task:
    """The same two classes with one output: the loss of a logit."""
    y = task.y.float()[:, None]
    return Task(task.x, y, F.binary_cross_entropy_with_logits, 1, task.constant)


def numbers(x: object, y: object, loss: Callable[..., Tensor] = F.mse_loss) -> Task:
    """A regression; the best constant prediction is the mean."""
    rows = torch.as_tensor(np.asarray(x), dtype=torch.float32)
    targets = torch.as_tensor(np.asarray(y), dtype=torch.float32)
    targets = targets if targets.dim() > 1 else targets[:, None]
    constant = float(loss(targets.mean(0).expand_as(targets), targets))
    return Task(rows, targets, loss, targets[0].numel(), constant)


def standard(x: object) -> np.ndarray:
    """Columns of mean 0 and standard deviation 1."""
    values = np.asarray(x, dtype=np.float64)
    return (values - values.mean(0)) / (values.std(0) + 1e-12)


@cache
def task(name: str) -> Task:
    """A task by its name."""
    return TASKS[name]()


def bundled(load: Callable[..., tuple[object, object]]) -> Task:
    x, y = load(return_X_y=True)
    return classes(standard(x), y)


def circles(factor: float = 0.5, noise: float = 0.1) -> Task:
    return classes(*datasets.make_circles(1000, noise=noise, factor=factor, random_state=1))


def digits(shape: tuple[int, ...] = (64,)) -> Task:
    x, y = datasets.load_digits(return_X_y=True)
    return classes((x / 16).reshape(-1, *shape), y)


def diabetes() -> Task:
    x, y = datasets.load_diabetes(return_X_y=True)
    return numbers(standard(x), standard(y))


def sine() -> Task:
    x = np.linspace(-3, 3, 400)[:, None]
    return numbers(x, np.sin(2 * x))


def teacher() -> Task:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2000, 20, generator=generator)
    inner = torch.tanh(x @ torch.randn(20, 30, generator=generator) / 4)
    y = inner @ torch.randn(30, 3, generator=generator) / 3
    return numbers(x, y)


def friedman() -> Task:
    x, y = datasets.make_friedman1(1000, noise=0.5, random_state=0)
    return numbers(standard(x), standard(y))


def bag_of_words() -> Task:
    """Sparse counts of 200 words in 1,500 texts of 8 topics."""
    rng = np.random.default_rng(2)
    topics = rng.dirichlet(np.full(200, 0.05), 8)
    y = rng.integers(0, 8, 1500)
    x = np.stack([rng.multinomial(30, topics[k]) for k in y])
    return classes((x > 0).astype(np.float32), y)


def reviews(length: int = 40) -> Task:
    """Texts of 100 different tokens, good or bad by which of 12 of them occur more often."""
    rng = np.random.default_rng(3)
    x = rng.integers(12, 100, (1500, length))
    y = rng.integers(0, 2, 1500)
    for row, label in enumerate(y):
        places = rng.choice(length, 8, replace=False)
        good = rng.random(8) < (0.85 if label else 0.15)
        x[row, places] = np.where(good, rng.integers(0, 6, 8), rng.integers(6, 12, 8))
    made = classes(x, y)
    return Task(torch.as_tensor(x), made.y, made.loss, 2, made.constant)


def textures(size: int = 16) -> Task:
    """Colour images of four textures: stripes of two directions, checks and noise."""
    rng = np.random.default_rng(4)
    y = rng.integers(0, 4, 800)
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    images = []
    for label in y:
        phase, period = rng.uniform(0, 6), rng.uniform(3, 5)
        one, other = (np.sin(2 * np.pi * axis / period + phase) for axis in (across, down))
        base = [one, other, one * other, rng.standard_normal((size, size)) * 0.7][label]
        images.append(base[None] * rng.uniform(0.5, 1, (3, 1, 1)))
    x = np.stack(images) + 0.4 * rng.standard_normal((len(y), 3, size, size))
    return classes(x, y)


def adding(length: int) -> Task:
    """The sum of two marked numbers (Hochreiter and Schmidhuber 1997)."""
    rng = np.random.default_rng(5)
    values = rng.uniform(0, 1, (2000, length))
    marks = np.zeros((2000, length))
    half = length // 2
    rows = np.arange(2000)
    one, other = rng.integers(0, half, 2000), rng.integers(half, length, 2000)
    marks[rows, one] = marks[rows, other] = 1
    return numbers(np.stack([values, marks], -1), values[rows, one] + values[rows, other])


def waves(length: int = 30) -> Task:
    """Sequences of one number; which of three frequencies do they have?"""
    rng = np.random.default_rng(6)
    y = rng.integers(0, 3, 1000)
    time = np.arange(length)
    phase = rng.uniform(0, 6, (1000, 1))
    x = np.sin(time * (0.3 + 0.3 * y[:, None]) + phase) + 0.2 * rng.standard_normal((1000, length))
    return classes(x[..., None], y)


def first_symbol(length: int) -> Task:
    """Which of 4 symbols came first, before noise?"""
    rng = np.random.default_rng(7)
    y = rng.integers(0, 4, 1000)
    x = 0.3 * rng.standard_normal((1000, length, 5))
    x[np.arange(1000), 0, y] += 2.0
    return classes(x, y)


def characters(context: int = 32) -> Task:
    """The Zen of Python, to predict each next character."""
    import codecs
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):
        import this
    text = codecs.decode(this.s, "rot13")
    known = sorted(set(text))
    numbers_ = torch.tensor([known.index(c) for c in text])
    starts = torch.arange(0, len(text) - context - 1, 2)
    x = torch.stack([numbers_[s : s + context] for s in starts])
    y = torch.stack([numbers_[s + 1 : s + context + 1] for s in starts])
    share = torch.bincount(y.flatten()).double() / y.numel()
    entropy = float(-(share * share.clamp(min=1e-12).log()).sum())
    return Task(x, y, cross_entropy, len(known), entropy)


def wide_targets() -> Task:
    """A regression in its own units: targets about 500 that vary by 5."""
    made = diabetes()
    return numbers(made.x, 500 + 5 * made.y)


TASKS: dict[str, Callable[[], Task]] = {
    "circles": circles,
    "circles_near": lambda: circles(0.8),
    "moons": lambda: classes(*datasets.make_moons(600, noise=0.15, random_state=0)),
    "blobs": lambda: classes(
        *datasets.make_blobs(800, centers=6, n_features=8, cluster_std=3.0, random_state=0)
    ),
    "iris": lambda: bundled(datasets.load_iris),
    "wine": lambda: bundled(datasets.load_wine),
    "cancer": lambda: bundled(datasets.load_breast_cancer),
    "digits": digits,
    "digit_images": lambda: digits((1, 8, 8)),
    "digit_rows": lambda: digits((8, 8)),
    "diabetes": diabetes,
    "wide_targets": wide_targets,
    "sine": sine,
    "teacher": teacher,
    "friedman": friedman,
    "words": bag_of_words,
    "reviews": reviews,
    "textures": textures,
    "adding_20": lambda: adding(20),
    "adding_100": lambda: adding(100),
    "waves": waves,
    "first_of_10": lambda: first_symbol(10),
    "first_of_80": lambda: first_symbol(80),
    "characters": characters,
}
