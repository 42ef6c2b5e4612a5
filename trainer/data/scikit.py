"""Small classic data sets that scikit-learn generates or carries."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from trainer import memory
from trainer.config.data_sections import Blobs, Circles, Diabetes, Digits, Moons
from trainer.config.problem import Problem
from trainer.data.table import DataError, Table


def circles(section: Circles, seed: int) -> Table:
    """x (N, 2) on two circles around 0, y: 0 for the outer and 1 for the inner one."""
    _need(section.samples, 2)
    made = _datasets().make_circles(
        section.samples, noise=section.noise, factor=section.factor, random_state=seed
    )
    return _classified(made, 2)


def moons(section: Moons, seed: int) -> Table:
    """x (N, 2) on two half circles that interleave, y: which of them."""
    _need(section.samples, 2)
    made = _datasets().make_moons(section.samples, noise=section.noise, random_state=seed)
    return _classified(made, 2)


def blobs(section: Blobs, seed: int) -> Table:
    """x (N, features) around centers, y: the number of the center."""
    _need(section.samples + section.centers, section.features)
    made = _datasets().make_blobs(
        section.samples,
        n_features=section.features,
        centers=section.centers,
        cluster_std=section.noise,
        random_state=seed,
    )
    return _classified(made, section.centers)


def digits(section: Digits) -> Table:
    """x (1797, 1, 8, 8) from 0 to 1, y: the digit."""
    x, y = _datasets().load_digits(return_X_y=True)
    return _classified((x.reshape(-1, 1, 8, 8) / 16, y), 10)


def diabetes(section: Diabetes) -> Table:
    """x (442, 10) and y (442, 1) in their own units, to be standardised if asked for."""
    made = _datasets().load_diabetes(scaled=False)
    x, y = torch.from_numpy(made.data), torch.from_numpy(made.target)[:, None]
    names = tuple(made.feature_names)
    return Table(x, y, x_names=names, y_names=("progression",), standardize=section.standardize)


def _need(samples: int, features: int) -> None:
    memory.need(48 * samples * (features + 4), f"samples: {samples:,} rows of {features:,} inputs")


def _classified(made: tuple[Any, Any], classes: int) -> Table:
    x, y = (torch.from_numpy(part) for part in made)
    names = tuple(str(number) for number in range(classes))
    return Table(x, y, y_names=names, classes=classes)


def _datasets() -> Any:
    try:
        return importlib.import_module("sklearn.datasets")
    except ImportError:
        message = "needs scikit-learn: pip install scikit-learn"
        raise DataError(Problem(("data", "name"), message)) from None
