"""Results as a table, as JSON, and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from sgl_like.cli.bench.load import Level
from sgl_like.cli.bench.summary import Spread, Summary
from sgl_like.errors import DataError

WIDTH = 150
"""Columns of a table that no terminal limits."""


def print_results(console: Console, summaries: Sequence[Summary]) -> None:
    """A line for each level; times in milliseconds."""
    if not console.is_terminal:
        console.width = WIDTH
    table = Table(
        title="times in ms: p50 / p90 / p99", title_justify="left", title_style="dim", header_style="bold"
    )
    table.add_column("load")
    for name in ("done", "aborted", "errors", "req/s", "tok/s"):
        table.add_column(name, justify="right")
    objectives = any(summary.goodput is not None for summary in summaries)
    if objectives:
        table.add_column("good req/s", justify="right")
    for name in ("first token", "between tokens", "end to end", "cached"):
        table.add_column(name, justify="right")
    for summary in summaries:
        cells = [
            load_name(summary.level),
            f"{summary.completed:,}",
            f"{summary.aborted:,}",
            f"{sum(summary.errors.values()):,}",
            f"{summary.requests_per_s:,.1f}",
            f"{summary.output_tokens_per_s:,.0f}",
        ]
        if objectives:
            cells.append(f"{summary.goodput or 0:,.1f} ({summary.slo_share or 0:.0%})")
        cached = "-" if summary.cached_share is None else f"{summary.cached_share:.0%}"
        table.add_row(*cells, *(_times(each) for each in (summary.ttft, summary.itl, summary.e2e)), cached)
    console.print(table)
    for summary in summaries:
        _print_errors(console, summary)
    busiest = max(summary.client_cpu_share for summary in summaries)
    console.print(f"the load generator took up to {busiest:.0%} of one processor", style="dim")


def load_name(level: Level) -> str:
    """How a level is called."""
    return f"{level.rate:g}/s" if level.rate is not None else f"{level.concurrency} at a time"


def _times(spread: Spread) -> str:
    if not spread.count:
        return "-"
    return " / ".join(_milliseconds(seconds) for seconds in (spread.p50, spread.p90, spread.p99))


def _milliseconds(seconds: float) -> str:
    found = seconds * 1000
    return f"{found:.2f}" if found < 10 else f"{found:.1f}" if found < 100 else f"{found:,.0f}"


def _print_errors(console: Console, summary: Summary) -> None:
    for kind, count in summary.errors.items():
        examples = summary.messages.get(kind, ())
        shown = f": {examples[0]}" if examples else ""
        line = f"{load_name(summary.level)}: {count:,} times {kind}{shown}"
        console.print(line, style="red", markup=False, highlight=False)


def write_json(path: Path, summaries: Sequence[Summary], about: Mapping[str, Any]) -> None:
    """All numbers; times in seconds.

    Args:
        path: of the file.
        summaries: of the levels.
        about: what was measured, and how.
    """
    levels = [asdict(summary) for summary in summaries]
    path.write_bytes(orjson.dumps({**about, "levels": levels}, option=orjson.OPT_INDENT_2) + b"\n")


def check_plot() -> None:
    """Whether pictures can be drawn.

    Raises:
        DataError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DataError("--plot needs matplotlib: pip install 'sgl-like[bench]'") from None


def plot(path: Path, summaries: Sequence[Summary], title: str) -> None:
    """Draw rates and times over the load into a PNG (or whatever the name's suffix says)."""
    from matplotlib.figure import Figure

    open_loop = summaries[0].level.rate is not None
    loads = [float(s.level.rate or 0) if open_loop else float(s.level.concurrency or 0) for s in summaries]
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 2)
    rates = axes[0][0]
    rates.plot(
        loads, [s.output_tokens_per_s for s in summaries], "o-", color="tab:blue", label="output tokens/s"
    )
    rates.set_ylabel("output tokens/s", color="tab:blue")
    requests = rates.twinx()
    requests.plot(loads, [s.requests_per_s for s in summaries], "s--", color="tab:orange", label="requests/s")
    goodput = [s.goodput for s in summaries if s.goodput is not None]
    if goodput:
        requests.plot(loads, goodput, "^:", color="tab:green", label="goodput")
    requests.set_ylabel("requests/s", color="tab:orange")
    requests.set_ylim(bottom=0)
    rates.set_ylim(bottom=0)
    requests.legend(handles=[*rates.get_lines(), *requests.get_lines()], loc="upper left")
    rates.set_title("throughput")
    spreads: list[tuple[Any, str, list[Spread]]] = [
        (axes[0][1], "time to first token", [s.ttft for s in summaries]),
        (axes[1][0], "between tokens", [s.itl for s in summaries]),
        (axes[1][1], "end to end", [s.e2e for s in summaries]),
    ]
    for axis, name, of in spreads:
        for percentile in ("p50", "p90", "p99"):
            axis.plot(loads, [getattr(s, percentile) * 1000 for s in of], "o-", label=percentile)
        axis.set_title(name)
        axis.set_ylabel("milliseconds")
        if any(s.p50 for s in of):
            axis.set_yscale("log")
        axis.legend()
    for axis in axes.flat:
        axis.grid(True, alpha=0.3)
        axis.set_xlabel("requests a second" if open_loop else "requests at a time")
        if len(loads) > 2 and not open_loop:
            axis.set_xscale("log", base=2)
            axis.set_xticks(loads, [f"{load:g}" for load in loads])
    figure.savefig(path, dpi=110)
