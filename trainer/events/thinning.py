"""Which of many points are kept, so that their number grows slowly."""

from __future__ import annotations


class Thinning:
    """Keeps the first `first` things, then 1 in 2, and 1 in twice as many when the number doubles.

    So n things leave about first · (1 + log2(n / first) / 2).
    """

    def __init__(self, first: int) -> None:
        self._first, self.seen = first, 0

    def keep(self) -> bool:
        """Whether the next thing is kept."""
        every = 1 << (self.seen // self._first).bit_length()
        kept = self.seen % every == 0
        self.seen += 1
        return kept
