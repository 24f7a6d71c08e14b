"""What a person sees of a job: progress and summary on standard error, the demo's table on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sgl_like.cli.extract import Answer, Totals

PLAIN_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""


class Report:
    """Progress over `total` rows, `done` of which an earlier run wrote: a bar, or now and then a line.

    Args:
        console: where to; standard error.
        total: rows of the whole job.
        done: rows to start from.
    """

    def __init__(self, console: Console, total: int, done: int = 0) -> None:
        self._console = console
        self._total = total
        self._done = done
        self._next_line = monotonic() + PLAIN_INTERVAL
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("extract", total=total, completed=done, rate="")

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, totals: Totals) -> None:
        """Show that rows were done."""
        rate = f"{totals.rows_per_s:.1f} rows/s"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=self._done + totals.rows, rate=rate)
        elif monotonic() >= self._next_line:
            self._next_line = monotonic() + PLAIN_INTERVAL
            say(self._console, f"{self._done + totals.rows} of {self._total} rows, {rate}")


def say(console: Console, message: str) -> None:
    """Print a line as it is, whatever brackets it has in it."""
    console.print(Text(message), soft_wrap=True)


def print_summary(console: Console, totals: Totals, *, resumed: int = 0, load_s: float | None = None) -> None:
    """Print what a run did and what it cost."""
    grid = Table.grid(padding=(0, 2))
    rows = [f"{totals.rows:,} done"]
    if resumed:
        rows.append(f"{resumed:,} were done before")
    rows.append(f"{totals.failed:,} failed")
    grid.add_row("rows", ", ".join(rows))
    loading = f", after {load_s:.1f} s to load the model" if load_s is not None else ""
    grid.add_row("time", f"{totals.seconds:.1f} s, {totals.rows_per_s:.1f} rows/s{loading}")
    grid.add_row(
        "prompt tokens", f"{totals.prompt:,}, of which cached {_share(totals.cached, totals.prompt)}"
    )
    output = totals.sampled + totals.forced
    grid.add_row(
        "output tokens", f"{output:,}: sampled {totals.sampled:,}, forced {_share(totals.forced, output)}"
    )
    console.print(grid)


def print_table(console: Console, done: Sequence[tuple[str, Answer]]) -> None:
    """Print utterances with what was read out of them."""
    table = Table(show_lines=False, header_style="bold", expand=False)
    table.add_column("utterance", ratio=1)
    table.add_column("intent", no_wrap=True)
    table.add_column("slots", ratio=1, overflow="fold")
    for text, answer in done:
        if answer.error is not None:
            table.add_row(Text(text), Text("error", style="red"), Text(answer.error))
            continue
        slots = dict(answer.output)
        intent = slots.pop("intent", "")
        table.add_row(Text(text), Text(str(intent), style="cyan"), _slots(slots))
    console.print(table)


def _slots(slots: dict[str, Any]) -> Text:
    shown = Text()
    for number, (name, value) in enumerate(slots.items()):
        shown.append(", " if number else "")
        shown.append(f"{name}=", style="dim")
        shown.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return shown


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.0%})" if whole else f"{part:,}"
