"""Tables in plain text, and in colour where there is a terminal and rich."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], left: int = 1, *, notes: bool = False) -> str:
    """Align columns: the first `left` (with `notes` also the last) to the left. The first row is a header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i < left or (notes and i == len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def print_table(rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print rows as `text_table` aligns them; with rich's lines and colours on a terminal."""
    if sys.stdout.isatty():
        try:
            from rich import box
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(box=box.SIMPLE_HEAD, header_style="bold cyan", pad_edge=False)
            for index, title in enumerate(rows[0]):
                table.add_column(title, justify="left" if index < left else "right", overflow="fold")
            for row in rows[1:]:
                table.add_row(*row)
            Console().print(table)
            return
    print(text_table(rows, left))
