"""Finding where regexes match in a text that grows, in linear time: what ``stop_regex`` needs.

From every place of the text an automaton of derivatives starts; those that can still come to a match are kept by
state, each with the first place it started from, so there are never more than states. No pattern makes a step take
long, as backtracking may, and text before the first kept place will never be part of a match.

    pattern "ab+c"    text  x a b b     kept: "b*c" from place 1, so the text is settled up to there
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.codepoints import utf8
from sgl_like.runtime.constrain.derive import edges
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.regex import Converter

__all__ = ["LOOK_BACK", "Occurrence", "OccurrenceSearch", "Pattern"]

LOOK_BACK = 1024
"""Characters that a match may have; a longer one is not found, so that no more text than this is ever held back."""
MAX_STEPS = 50_000
"""Steps between states that a pattern remembers."""
LIMITS = Limits(max_work=100_000, max_width=1000, max_search=5000)


class Occurrence(NamedTuple):
    """A match: its place, the text's length when it was there, and the pattern."""

    start: int
    end: int
    pattern: str


class Pattern:
    """A compiled pattern. Its searches share what they learn, and belong on one thread.

    Args:
        source: in Python's syntax; see `regex.regex_to_expr` for what is not supported.

    Raises:
        ConstraintError: bad or unsupported syntax, or it matches the empty string.
        ConstraintTooComplex: a limit was reached.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._pool = Pool(LIMITS)
        self._pool.start_work()
        converter = Converter(self._pool, lambda ranges: utf8(self._pool, ranges))
        self._at_start, self._later = converter.occurrences(source)
        if self._at_start.nullable or self._later.nullable:
            raise ConstraintError(f"regex {source!r} matches the empty string, so it would match at once")
        self._steps: dict[tuple[Node, bytes], Node] = {}

    def begin(self, at_start: bool) -> Node:
        """The state of a match that begins here."""
        return self._at_start if at_start else self._later

    def step(self, state: Node, character: bytes) -> Node:
        """The state after one character; `EMPTY` if no match can come of it. Raises ConstraintTooComplex."""
        after = self._steps.get((state, character))
        if after is None:
            after = state
            self._pool.start_work()
            for byte in character:
                targets = (target for mask, target in edges(self._pool, after) if mask >> byte & 1)
                after = next(targets, EMPTY)
            if len(self._steps) >= MAX_STEPS:
                self._steps.clear()
                self._pool.forget()
            self._steps[state, character] = after
        return after


class OccurrenceSearch:
    """Looks for several patterns in one text.

    Args:
        patterns: their order decides between matches that begin at the same place.
    """

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self._live: list[dict[Node, int]] = [{} for _ in patterns]
        self._length = 0

    @property
    def held(self) -> int:
        """Length of the end of the text that may become part of a match."""
        first = min((start for live in self._live for start in live.values()), default=self._length)
        return self._length - first

    def push(self, text: str) -> Occurrence | None:
        """Add text. The match that is complete first; of several, the one that begins first.

        Raises:
            ConstraintTooComplex: a pattern reached a limit.
        """
        for character in text:
            data = character.encode("utf-8", errors="surrogatepass")
            found = [
                Occurrence(start, self._length + 1, pattern.source)
                for index, pattern in enumerate(self._patterns)
                if (start := self._advance(index, data)) is not None
            ]
            self._length += 1
            if found:
                return min(found, key=lambda each: each.start)
        return None

    def _advance(self, index: int, character: bytes) -> int | None:
        """Take one character; returns where the first match that is complete now began."""
        pattern, live = self._patterns[index], self._live[index]
        live.setdefault(pattern.begin(self._length == 0), self._length)
        after: dict[Node, int] = {}
        oldest = self._length + 1 - LOOK_BACK
        for state, start in live.items():
            state = pattern.step(state, character)
            if state is not EMPTY and start >= oldest:
                after[state] = min(start, after.get(state, start))
        self._live[index] = after
        return min((start for state, start in after.items() if state.nullable), default=None)
