"""Traces as HTML: a page that stands alone, or a piece of one for a notebook.

There is no script. What a token's probability was, and what could have come instead, lies in the markup and is shown by
the style sheet when the token is pointed at or focused. The page's policy (CSP) allows that style sheet, by its digest,
and nothing else: whatever a model or a user wrote could not run or load anything even if it were not escaped.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape

from sgl_like.frontend.view.format import COUNTS, KINDS, Branch, Fork, Part, Token, Trace
from sgl_like.frontend.view.style import PAGE_STYLE, STYLE
from sgl_like.frontend.view.visible import percent, split_visible, visible

__all__ = ["fragment", "page"]

_BOUNDS = (0.01, 0.1, 0.5, 0.9)  # of probability; the classes p0 ... p3 are below them


def page(traces: Sequence[Trace]) -> str:
    """A whole document."""
    digest = b64encode(hashlib.sha256(PAGE_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = escape(visible(" · ".join(dict.fromkeys(trace.program for trace in traces))))
    body = _contents(traces) + _articles(traces, "t")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{PAGE_STYLE}</style></head>\n<body><main>{body}</main></body></html>\n"
    )


def fragment(traces: Sequence[Trace], prefix: str = "t") -> str:
    """A piece of a document, for notebooks. `prefix` keeps its ids apart from those of others there."""
    return f"<div><style>{STYLE}</style>{_articles(traces, prefix)}</div>"


def _articles(traces: Sequence[Trace], prefix: str) -> str:
    return "".join(_Page(trace, f"{prefix}{number}").html() for number, trace in enumerate(traces, 1))


def _contents(traces: Sequence[Trace]) -> str:
    """Links to the traces, if there are several."""
    if len(traces) < 2:
        return ""
    items = []
    for number, trace in enumerate(traces, 1):
        state = " · failed" * (trace.run.error is not None) + " · running" * trace.run.running
        items.append(
            f'<li><a href="#t{number}">{_text(trace.program)}</a><span class="sub">{state}</span></li>'
        )
    return f'<nav class="sgl-trace"><ol>{"".join(items)}</ol></nav>'


class _Page:
    """Writes one trace. Gens are numbered as they come, so that text and table can refer to each other."""

    def __init__(self, trace: Trace, prefix: str) -> None:
        self._trace = trace
        self._prefix = prefix
        self._gens: list[Part] = []

    def html(self) -> str:
        trace = self._trace
        head = f"<h1>{_text(trace.program)}</h1><div class=sub>{_text(trace.model)}{_usage(trace.run)}</div>"
        body = self._branch(trace.run)
        return (
            f'<article class="sgl-trace" id="{self._prefix}">{head}{_legend()}{body}{self._table()}</article>'
        )

    def _branch(self, branch: Branch) -> str:
        out: list[str] = []
        begun: set[int | None] = set()
        for parts in branch.messages():
            if isinstance(parts, Fork):
                out.append(self._fork(parts))
                continue
            role, message = parts[0].role, parts[0].message
            continued = ", continued" * (message in begun)
            label = "" if role is None else f'<div class="role">{_text(role)}{continued}</div>'
            begun.add(message)
            content = "".join(self._part(part) for part in parts)
            out.append(f'<section class="card">{label}<div class="text" dir="auto">{content}</div></section>')
        if branch.error is not None:
            out.append(f'<div class="error" role="alert">{_text(branch.error.message)}</div>')
        if branch.running:
            out.append('<div class="sub">still running …</div>')
        return "".join(out)

    def _fork(self, fork: Fork) -> str:
        count = len(fork.branches)
        branches = "".join(
            f'<section class="branch"><h3>fork {number} <span class="sub">of {count}{_usage(branch)}</span></h3>'
            f"{self._branch(branch)}</section>"
            for number, branch in enumerate(fork.branches)
        )
        joined = "" if fork.join is None else f'<div class="sub joined">joined: {_text(fork.join)}</div>'
        return f'<div class="fork">{branches}</div>{joined}'

    def _part(self, part: Part) -> str:
        if part.type == "text":
            tokens = _tokens(part, focusable=False)
            return f'<span class="markup">{tokens}</span>' if part.markup else tokens
        self._gens.append(part)
        number = len(self._gens)
        classes = f"gen {part.type}{' broken' * part.broken}"
        label = (
            f'<a class="name" href="#{self._prefix}r{number}">{_text(part.name or part.type)}</a>'
            if part.usage
            else f'<span class="name">{_text(part.name or part.type)}</span>'
        )
        return f'<span class="{classes}" id="{self._prefix}g{number}">{label}{_tokens(part)}</span>{_others(part)}'

    def _table(self) -> str:
        rows = [self._row(number, part) for number, part in enumerate(self._gens, 1) if part.usage]
        if not rows:
            return ""
        numbers = (*COUNTS.values(), "seconds")
        heads = ("name", "ended by", *numbers, "asked for")
        head = "".join(f"<th{' class=num' * (name in numbers)}>{name}</th>" for name in heads)
        return (
            f'<section class="card scroll"><table class="gens"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></section>"
        )

    def _row(self, number: int, part: Part) -> str:
        cells = "".join(f"<td class=num>{part.usage.get(name, 0):,}</td>" for name in COUNTS)
        seconds = "" if part.seconds is None else f"{part.seconds:.3f}"
        name = _text(part.name or part.type)
        return (
            f'<tr id="{self._prefix}r{number}"><td><a href="#{self._prefix}g{number}">{name}</a></td>'
            f"<td>{_text(part.ended_by)}</td>{cells}<td class=num>{seconds}</td><td>{_asked(part)}</td></tr>"
        )


def _tokens(part: Part, focusable: bool = True) -> str:
    if part.tokens is None:
        kind = {"text": "prompt", "gen": "sampled", "select": "selected"}[part.type]
        return f'<span class="t {kind}">{_text(part.text)}</span>' if part.text else ""
    return "".join(_token(token, focusable) for token in part.tokens)


def _token(token: Token, focusable: bool) -> str:
    probability = token.probability
    bucket = ""
    if token.kind == "sampled" and probability is not None:
        bucket = next((f" p{i}" for i, bound in enumerate(_BOUNDS) if probability < bound), "")
    text = _text(token.kept)
    if not token.text and focusable:
        text = '<span class="bytes">·</span>'
    if token.cut:
        text += f'<span class="cut">{_text(token.text[len(token.kept) :])}</span>'
    tip, focus = "", ""
    if focusable or probability is not None:
        tip, focus = f'<span class="tip" role="tooltip" hidden>{_tip(token)}</span>', ' tabindex="0"'
    return f'<span class="t {token.kind}{bucket}"{focus}>{text}{tip}</span>'


def _tip(token: Token) -> str:
    about = [f"<b>{token.kind}</b>: {KINDS[token.kind]}"]
    if token.cut:
        about.append(
            "not part of the output" if token.cut == len(token.text) else "its end is not part of the output"
        )
    if token.joined:
        about.append("begins in the text before")
    if not token.text:
        about.append("the beginning of a character")
    if token.id is not None:
        about.append(f"token {token.id}")
    if token.logprob is not None:
        about.append(f"probability {percent(token.probability)} (log {token.logprob:.3f})")
    bars = [(each.text, each.probability, token.id is not None and each.id == token.id) for each in token.top]
    return "<br>".join(about) + _bars(bars)


def _bars(rows: Sequence[tuple[str, float | None, bool]]) -> str:
    """Texts, their probabilities, and which was taken."""
    cells = []
    for text, probability, taken in rows:
        chosen = ' class="taken"' if taken else ""
        cells.append(
            f'<tr{chosen}><td class="alt">{_text(text, names=True)}</td>'
            f"<td><meter value={probability or 0:.4f}></meter></td><td class=num>{percent(probability)}</td></tr>"
        )
    return f"<table>{''.join(cells)}</table>" if rows else ""


def _others(part: Part) -> str:
    """Outputs that did not become part of the text."""
    others = [
        f'<div><span class="gen">{_tokens(other)}</span> <span class="sub">{_text(other.ended_by)}</span></div>'
        for other in part.others
    ]
    refused = [
        f'<div>{_text(each.text)} <span class="sub">{_text(each.reason)}</span></div>'
        for each in part.refused
    ]
    return _details(others, "other output") + _details(refused, "refused output")


def _details(rows: Sequence[str], what: str) -> str:
    count = len(rows)
    head = f"<summary>{count} {what}{'s' * (count > 1)}</summary>"
    return f"<details>{head}{''.join(rows)}</details>" if rows else ""


def _asked(part: Part) -> str:
    if part.type == "select":
        return _bars([(each.text, each.probability, each.text == part.text) for each in part.choices])
    short = {name: value for name, value in part.params.items() if not isinstance(value, dict)}
    rest = {name: value for name, value in part.params.items() if isinstance(value, dict)}
    line = ", ".join(f"{name}={json.dumps(value)}" for name, value in short.items())
    long = "".join(
        f"<details><summary>{_text(name)}</summary><pre>{_text(json.dumps(value, indent=1))}</pre></details>"
        for name, value in rest.items()
    )
    return f"<pre>{_text(line)}</pre>{long}"


def _legend() -> str:
    items = "".join(
        f'<li><span class="t {kind}">{kind}</span> {meaning}</li>' for kind, meaning in KINDS.items()
    )
    scale = " ".join(
        f'<span class="t sampled p{i}">&lt; {bound:.0%}</span>' for i, bound in enumerate(_BOUNDS)
    )
    return f'<ul class="legend">{items}<li>probability {scale}</li></ul>'


def _usage(branch: Branch) -> str:
    counts = ", ".join(f"{branch.usage.get(name, 0):,} {word}" for name, word in COUNTS.items())
    return f" · tokens: {counts}" if any(branch.usage.values()) else ""


def _text(text: str, names: bool = False) -> str:
    """Escaped, with marks for line breaks and for what would not be seen; with `names` blanks are marked, too."""
    return "".join(_pieces(text, names))


def _pieces(text: str, names: bool) -> Iterator[str]:
    for piece, special in split_visible(text):
        if special:
            yield f'<span class="ctl">{escape(piece)}</span>'
        elif names:
            yield escape(piece).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥")
        else:
            yield escape(piece).replace("\n", '<span class="nl" aria-hidden="true">↵</span>\n')
