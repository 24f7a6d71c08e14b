"""Traces in a terminal.

With colours, text runs on as it was written, each token on the ground of its kind. Without (NO_COLOR, a dumb terminal,
a file), every run of tokens of one kind has a line of its own that begins with the kind. Forks stand side by side where
there is room for it. All text is made safe to show first: nothing in it is a command to the terminal, or markup.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sgl_like.frontend.view.format import COUNTS, Branch, Fork, Kind, Part, Token, Trace
from sgl_like.frontend.view.visible import percent, split_visible, visible

__all__ = ["show"]

_INK = "#000000"
_STYLES = {
    "prompt": Style(),
    "cached": Style(color="bright_blue"),
    "sampled": Style(color=_INK, bgcolor="#87d787"),
    "forced": Style(color=_INK, bgcolor="#ffd75f", underline=True),
    "selected": Style(color=_INK, bgcolor="#d7afff"),
    "healed": Style(color=_INK, bgcolor="#d7afff", underline=True),
}
_UNLIKELY = (
    (0.01, Style(color=_INK, bgcolor="#ff8787")),
    (0.1, Style(color=_INK, bgcolor="#ffaf87")),
    (0.5, Style(color=_INK, bgcolor="#e4e48a")),
    (0.9, Style(color=_INK, bgcolor="#afd787")),
)
_NARROWEST = 24  # columns that a fork needs


def show(traces: Sequence[Trace], console: Console, probabilities: bool = False) -> None:
    """Print traces.

    Args:
        traces: what to print.
        console: where to.
        probabilities: also a table of each gen's tokens, with the likeliest ones at their place.
    """
    for trace in traces:
        console.print(_Screen(console, probabilities).trace(trace), soft_wrap=False)


class _Screen:
    """Makes what rich prints, for one console."""

    def __init__(self, console: Console, probabilities: bool) -> None:
        self._colours = console.color_system is not None and not console.no_color
        self._encoding = console.encoding
        self._width = console.width
        self._probabilities = probabilities
        self._gens: list[Part] = []

    def trace(self, trace: Trace) -> RenderableType:
        """All of a trace."""
        head = self._text(trace.program, "bold") + self._text(f"  {trace.model}", "dim")
        parts: list[RenderableType] = [head]
        if self._colours:
            parts.append(self._legend())
        parts += [self._branch(trace.run, self._width), *self._tables(trace)]
        return Group(*parts, Text())

    def _branch(self, branch: Branch, width: int) -> RenderableType:
        rows: list[RenderableType] = []
        for parts in branch.messages():
            if isinstance(parts, Fork):
                rows.append(self._fork(parts, width))
                continue
            if parts[0].role is not None:
                rows.append(self._text(parts[0].role, "bold underline" if self._colours else ""))
            rows.append(Padding(self._runs(parts), (0, 0, 0, 2)))
        if branch.error is not None:
            rows.append(self._text(f"error: {branch.error.message}", "bold red"))
        if branch.running:
            rows.append(self._text("still running ...", "dim"))
        return Group(*rows)

    def _fork(self, fork: Fork, width: int) -> RenderableType:
        count = len(fork.branches)
        room = (width - 1) // count - 3
        titles = [f"fork {number} of {count}" for number in range(count)]
        if room < _NARROWEST:  # one below the other
            rows: list[RenderableType] = []
            for title, branch in zip(titles, fork.branches, strict=True):
                rows.append(self._text(title, "bold"))
                rows.append(Padding(self._branch(branch, width - 2), (0, 0, 0, 2)))
            shown: RenderableType = Group(*rows)
        else:
            table = Table(expand=True)
            for title in titles:
                table.add_column(title, ratio=1, overflow="fold")
            table.add_row(*(self._branch(branch, room) for branch in fork.branches))
            shown = table
        return shown if fork.join is None else Group(shown, self._text(f"joined: {fork.join}", "dim"))

    def _runs(self, parts: Sequence[Part]) -> RenderableType:
        """The texts of one message, and outputs that did not become part of it."""
        gens = [part for part in parts if part.type != "text"]
        self._gens += gens
        write = self._line if self._colours else self._lines
        rows = [write(parts)]
        for part in gens:
            if part.others:
                rows.append(self._text(f"other outputs of {_name(part)}:", "dim"))
            rows += [write([other]) for other in part.others]
            for each in part.refused:
                rows.append(
                    self._text(f"refused output of {_name(part)}: {each.text} ({each.reason})", "dim")
                )
        return Group(*rows)

    def _line(self, parts: Sequence[Part]) -> RenderableType:
        line = Text(overflow="fold")
        for part in parts:
            if part.type != "text":
                style = "bold red" if part.broken else "bold reverse"
                line.append_text(self._text(f"[{_name(part)}]", style))
            for token, text, cut in _pieces(part):
                line.append_text(self._text(text, _CUT if cut else _style(token)))
        return line

    def _lines(self, parts: Sequence[Part]) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        labelled = [
            (f"{token.kind}{_of(part)}{', cut off' * cut}", text)
            for part in parts
            for token, text, cut in _pieces(part)
        ]
        for label, group in groupby(labelled, key=lambda each: each[0]):
            text = "".join(text for _, text in group)
            table.add_row(self._text(label), self._text(text if text == text.strip() else _quoted(text)))
        return table

    def _legend(self) -> Text:
        line = Text()
        for kind, style in _STYLES.items():
            line.append(kind, style)
            line.append(" ")
        line.append("  probability ")
        for bound, style in _UNLIKELY:
            line.append(f"<{bound:.0%}", style)
            line.append(" ")
        return line

    def _tables(self, trace: Trace) -> Iterator[RenderableType]:
        gens = [part for part in self._gens if part.usage]
        if not gens:
            return
        table = Table(title_justify="left")
        table.add_column("gen")
        for head in (*COUNTS.values(), "seconds"):
            table.add_column(head, justify="right")
        table.add_column("ended by")
        for part in gens:
            seconds = "" if part.seconds is None else f"{part.seconds:.3f}"
            name, ending = self._text(_name(part)), self._text(_ended_by(part))
            table.add_row(name, *_counts(part.usage), seconds, ending)
        table.add_section()
        table.add_row("all", *_counts(trace.run.usage), "", "")
        yield table
        if self._probabilities:
            yield from (self._token_table(part) for part in gens if part.tokens)

    def _token_table(self, part: Part) -> RenderableType:
        table = Table(title=self._text(_name(part)), title_justify="left")
        for name in ("token", "kind", "probability", "likeliest"):
            table.add_column(name, overflow="fold")
        for token in part.tokens or ():
            likeliest = ", ".join(f"{_quoted(each.text)} {percent(each.probability)}" for each in token.top)
            table.add_row(
                self._text(_quoted(token.text)), token.kind, percent(token.probability), self._text(likeliest)
            )
        return table

    def _text(self, text: str, style: str | Style = "") -> Text:
        """Text that is safe for this console."""
        out = Text(overflow="fold")
        for piece, special in split_visible(text):
            shown = piece.encode(self._encoding, "backslashreplace").decode(self._encoding)
            out.append(shown, Style(reverse=True) if special and self._colours else style)
        return out


_CUT = Style(dim=True, strike=True)


def _pieces(part: Part) -> Iterator[tuple[Token, str, bool]]:
    """Tokens of a part, each in up to two pieces: what is in the text, and (True) what was cut off."""
    kinds: dict[str, Kind] = {"text": "prompt", "gen": "sampled", "select": "selected"}
    for token in [Token(part.text, kinds[part.type])] if part.tokens is None else part.tokens:
        if token.kept:
            yield token, token.kept, False
        if token.cut:
            yield token, token.text[len(token.kept) :], True


def _counts(usage: Mapping[str, int]) -> list[str]:
    return [f"{usage.get(name, 0):,}" for name in COUNTS]


def _name(part: Part) -> str:
    return part.name or part.type


def _of(part: Part) -> str:
    return "" if part.type == "text" else f" ({_name(part)})"


def _style(token: Token) -> Style:
    probability = token.probability
    if token.kind == "sampled" and probability is not None:
        return next((style for bound, style in _UNLIKELY if probability < bound), _STYLES["sampled"])
    return _STYLES[token.kind]


def _ended_by(part: Part) -> str:
    if part.type == "select":
        return ", ".join(f"{choice.text} {percent(choice.probability)}".rstrip() for choice in part.choices)
    return part.ended_by


def _quoted(text: str) -> str:
    return visible(json.dumps(text, ensure_ascii=False))
