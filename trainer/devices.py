"""Which device a configuration's `device` means on this machine."""

from __future__ import annotations

import os

import torch

from trainer.config.problem import shown


def choose(name: str, dtype: str) -> torch.device:
    """The device of that name, or for `auto` an accelerator if there is one.

    ValueError when it cannot hold a number of that dtype.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        lacks_float64 = accelerator is not None and accelerator.type == "mps"
        if accelerator is None or (lacks_float64 and dtype == "float64"):
            return torch.device("cpu")
        return accelerator
    try:
        device = torch.device(name)
        number = torch.zeros((), device=device, dtype=torch.float64 if dtype == "float64" else None)
        number.item()  # the device `meta` makes tensors that hold no values
    except Exception as error:  # each kind of device has its own for being absent
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(f"cannot use {shown(name)}: {reason}; use auto or cpu") from None
    return device


def same_bits(wanted: bool) -> None:
    """Has torch refuse operations whose result may differ from one time to the next, or not."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)
