"""Rows of text as columns on stdout, where programs may read them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

FILE_WIDTH = 10_000  # of what is no terminal: nothing is wrapped


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints the rows under the header, each column as wide as its widest text."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    for title in header:
        table.add_column(escape(title), overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    width = None if sys.stdout.isatty() else FILE_WIDTH
    console = Console(file=sys.stdout, width=width, highlight=False)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
