"""Train a PyTorch model and watch its gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.autograd import gradients as gradients
    from trainer.autograd import per_sample_gradients as per_sample_gradients
    from trainer.monitor import Monitor as Monitor

__version__ = "0.1.0"

# Public name → its module, imported at first use: TensorBoard and `--help` need no torch.
_PUBLIC = {
    "Monitor": "trainer.monitor",
    "gradients": "trainer.autograd",
    "per_sample_gradients": "trainer.autograd",
}
__all__ = list(_PUBLIC)  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'trainer' has no attribute '{name}'")
    import importlib

    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
