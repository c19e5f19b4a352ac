"""How far the import is: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bridge.importing.report import WORDS, Report

TENTHS = 10


class _Rate(TextColumn):
    """Resources in a second."""

    def render(self, task: Task) -> Text:
        """Returns the rate, once there is one."""
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


class Progress:
    """Tells people on standard error how far it is."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bar: bars.Progress | None = None
        self._total = self._done = self._told = 0

    @contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """Shows how much of the input is read, in bytes."""
        columns = (TextColumn("Reading"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with self._shown(size, columns):
            yield

    @contextmanager
    def sending(self, resources: int) -> Iterator[None]:
        """Shows how many resources are settled, how fast, and how long it will last."""
        columns = (
            TextColumn("Importing"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(""),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
        )
        with self._shown(resources, columns):
            if not self.console.is_terminal:
                self.say(f"Importing {resources:,} resources.")
            yield

    @contextmanager
    def _shown(self, total: int, columns: tuple[bars.ProgressColumn, ...]) -> Iterator[None]:
        self._total, self._done, self._told = total, 0, 0
        if self.console.is_terminal:
            with bars.Progress(*columns, console=self.console, transient=True) as self._bar:
                self._bar.add_task("", total=total)
                yield
            self._bar = None
        else:
            yield

    def reached(self, done: int) -> None:
        """Shows that this much is done."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done)

    def advance(self, many: int) -> None:
        """Shows that this much more is done; in plain lines, every tenth of all."""
        self.reached(self._done + many)
        tenths = self._done * TENTHS // max(self._total, 1)
        if self._bar is None and tenths > self._told:
            self._told = tenths
            self.say(f"{self._done:,} of {self._total:,}")

    def say(self, text: str) -> None:
        """Prints a line, above the bar."""
        self.console.print(text, markup=False, soft_wrap=True)

    def summarise(self, report: Report, seconds: float) -> None:
        """Prints on standard output what came of the import."""
        words = [word for word in WORDS if report.total(word)] or [WORDS[0]]
        table = Table("", *words, box=None, pad_edge=False)
        for column in table.columns[1:]:
            column.justify = "right"
        for kind in sorted(report.counts):
            table.add_row(kind, *(f"{report.counts[kind][word]:,}" for word in words))
        if len(report.counts) != 1:
            table.add_row("Total", *(f"{report.total(word):,}" for word in words))
        Console(highlight=False).print(table)
        imported = report.total(WORDS[0])
        Console(highlight=False).print(
            f"{imported:,} in {seconds:,.1f} s: {imported / max(seconds, 0.001):,.0f} resources/s"
        )
