"""Samples read batch by batch, for data that do not fit in memory or are drawn anew."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from trainer.data import workers
from trainer.data.table import Part, Shape, Table, empty_split, split_rows


@dataclass(frozen=True)
class Stream:
    """The samples of a torch Dataset, read by `workers` processes (0: by this one) when asked for.

    Of two runs with the same seed both get the same batches. A Table's are the same as long as no
    rows are kept apart for validation, which it chooses by class.
    """

    dataset: Dataset[Any]  # samples (x, y) or (x, y, weight), by number
    samples: int
    workers: int
    shape: Shape
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype | None = None  # of floating-point values; None for their own
    seed: int = 0  # of the random numbers that workers draw
    as_numbers: bool = False  # whether classes are one column of numbers

    @classmethod
    def of(cls, dataset: Dataset[Any], samples: int, workers: int, seed: int) -> Stream:
        """The stream of a Dataset; the classes and tokens are counted in one pass if need be."""
        x, y, _ = arranged(*collated([dataset[0]]))
        bare = cls(dataset, samples, workers, Shape.of(x, y, None, None), seed=seed)
        classes = None if y.is_floating_point() else len(getattr(dataset, "classes", ()))
        vocabulary = 0 if is_tokens(x) else None
        if classes == 0 or vocabulary is not None:
            for x, y, _ in bare.parts(torch.split(torch.arange(samples), 256)):
                if classes is not None:
                    classes = max(classes, count("y", y))
                if vocabulary is not None:
                    vocabulary = max(vocabulary, count("x", x))
        return replace(bare, shape=Shape.of(x, y, classes, vocabulary))

    def __len__(self) -> int:
        return self.samples

    def parts(self, order: Iterable[Tensor]) -> Iterator[Part]:
        """The samples of each list of their numbers (n,), in this order."""
        parts = self._read(order)
        workers.reading(parts)
        return parts

    def _read(self, order: Iterable[Tensor]) -> Generator[Part, None, None]:
        loader = DataLoader(
            self.dataset,
            batch_sampler=(rows.tolist() for rows in order),
            num_workers=self.workers,
            worker_init_fn=workers.outlive_signals,
            collate_fn=collated,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator().manual_seed(self.seed),  # leaves the global numbers alone
        )
        with workers.Started():
            samples = iter(loader)
        for x, y, weights in samples:
            x, y, weights = arranged(x, y, weights)
            y = y[:, None].to(self.dtype) if self.as_numbers else y
            yield self._moved(x), self._moved(y), None if weights is None else self._moved(weights)

    def split(self, fraction: float, seed: int) -> tuple[Stream, Stream]:
        """The samples for training and round(fraction·N) for validation, drawn from the seed."""
        count = round(fraction * self.samples)
        if count in (0, self.samples):
            raise empty_split(fraction, self.samples, "training" if count else "validation")
        sides = split_rows(self.samples, count, seed)
        training, validation = (
            replace(self, dataset=Subset(self.dataset, side.tolist()), samples=len(side))
            for side in sides
        )
        return training, validation

    def scaled(self, like: Table | Stream | None = None) -> Stream:
        """The same samples: only rows in memory are standardised."""
        return self

    def to(self, device: torch.device, dtype: torch.dtype) -> Stream:
        """The same samples on a device, floating-point values in `dtype`."""
        return replace(self, device=device, dtype=dtype)

    def _moved(self, values: Tensor) -> Tensor:
        dtype = self.dtype if values.is_floating_point() else None
        return values.to(self.device, dtype, non_blocking=True)


def collated(samples: list[Any]) -> tuple[Any, Any, Any]:
    """The samples (x, y) or (x, y, weight) as x, y and weights (None without) with one row each."""
    first = samples[0]
    if not isinstance(first, tuple | list) or len(first) not in (2, 3):
        raise TypeError(
            f"its sample 0 is a {type(first).__name__}, expected (x, y) or (x, y, weight)"
        )
    parts = default_collate(samples)
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def arranged(x: Tensor, y: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The rows as models expect them: numbers in columns, tokens and classes as int64."""
    x, y = (part.long() if not part.is_floating_point() else part for part in (x, y))
    if x.dim() == 1 and x.is_floating_point():
        x = x[:, None]
    if y.dim() == 1 and y.is_floating_point():
        y = y[:, None]
    elif y.dim() == 2 and y.shape[1] == 1 and not y.is_floating_point():
        y = y[:, 0]
    return x, y, weights


def is_tokens(x: Tensor) -> bool:
    """Whether inputs are token indices: whole numbers, one per time step."""
    return not x.is_floating_point() and x.dim() == 2


def count(name: str, indices: Tensor) -> int:
    """The number of classes or tokens that indices from 0 on stand for; ValueError below 0."""
    if int(indices.min()) < 0:
        raise ValueError(
            f"{name} holds the index {int(indices.min())}; indices start at 0 "
            "(use floating-point numbers for quantities)"
        )
    return int(indices.max()) + 1
