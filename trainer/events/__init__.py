"""Writes records as TensorBoard events, in a thread that training does not wait for."""

from trainer.events.events import Events

__all__ = ["Events"]
