"""A progress bar where rich is installed and a person is watching; plain lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Progress:
    """`track` an iterable, or report fractions of a task; `print` above the bar."""

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self._bar = None
        if enabled and sys.stderr.isatty():
            try:
                from rich.console import Console
                from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
                from rich.progress import Progress as Bar
            except ImportError:
                return
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self):
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception):
        if self._bar:
            self._bar.stop()

    def print(self, text: str) -> None:
        if not self.enabled:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        with self.task(description, total) as advance:
            for item in items:
                yield item
                advance()

    @contextmanager
    def task(self, description: str, total: int):
        """A function that advances the task by one, and optionally shows a note."""
        if not self._bar:
            yield lambda note="", advance=1: None
            return
        task = self._bar.add_task(description, total=total, note="")
        try:
            yield lambda note="", advance=1: self._bar.update(task, advance=advance, note=note)
        finally:
            self._bar.remove_task(task)
