"""How TensorBoard gets the tab: what is imported when it starts, and the flag that it needs."""

from __future__ import annotations

from typing import Any

from tensorboard.plugins.base_plugin import TBLoader

from trainer.plugin.backend import Gradients
from trainer.wire import PLUGIN


class Loader(TBLoader):  # type: ignore[misc]
    """The entry point `tensorboard_plugins`."""

    def fix_flags(self, flags: Any) -> None:
        """Has TensorBoard keep every block of records: by default it keeps 100, or 10 of them.

        A number that the user has asked for stays.
        """
        flags.samples_per_plugin.setdefault(PLUGIN, 0)

    def load(self, context: Any) -> Gradients:
        """The tab."""
        return Gradients(context)
