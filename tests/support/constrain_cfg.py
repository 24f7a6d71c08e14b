"""A slow and simple model of context-free grammars: all their strings up to a length, by repeated expansion."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import strategies as st

Symbol = tuple[str, str]  # a letter or the name of a rule, and "", "?", "*" or "+"
LETTERS = "ab"


@dataclass(frozen=True)
class NaiveGrammar:
    """Rule name to alternatives. The first rule is the start."""

    rules: dict[str, tuple[tuple[Symbol, ...], ...]]

    def gbnf(self) -> str:
        """In GBNF syntax, with the first rule called root."""
        return "\n".join(
            f"{name} ::= " + " | ".join(" ".join(_gbnf(symbol) for symbol in way) for way in ways)
            for name, ways in self.rules.items()
        )

    def strings(self, most: int) -> set[str]:
        """All strings of up to `most` letters: what `most` rounds or more of putting strings for names give."""
        known: dict[str, set[str]] = {name: set() for name in self.rules}
        while True:
            found = {
                name: {text for way in ways for text in self._way(way, known, most)}
                for name, ways in self.rules.items()
            }
            if found == known:
                return known["root"]
            known = found

    def _way(self, way: tuple[Symbol, ...], known: dict[str, set[str]], most: int) -> set[str]:
        texts = {""}
        for name, times in way:
            texts = _product(texts, _repeated(known.get(name, {name}), times, most), most)
        return texts


def _repeated(once: set[str], times: str, most: int) -> set[str]:
    if times == "":
        return once
    if times == "?":
        return once | {""}
    found = {""} if times == "*" else set(once)
    while True:
        more = found | _product(found, once, most)
        if more == found:
            return found
        found = more


def _product(first: set[str], second: set[str], most: int) -> set[str]:
    return {a + b for a in first for b in second if len(a) + len(b) <= most}


def _gbnf(symbol: Symbol) -> str:
    name, times = symbol
    return (f'"{name}"' if name in LETTERS else name) + times


def words(most: int) -> list[str]:
    """All strings of up to `most` letters."""
    return ["".join(p) for size in range(most + 1) for p in itertools.product(LETTERS, repeat=size)]


def naive_grammars() -> st.SearchStrategy[NaiveGrammar]:
    """Random grammars of one to three rules; most are recursive, on the left, in the middle or hidden."""
    names = ("root", "x", "y")
    symbol = st.tuples(
        st.sampled_from([*LETTERS, *LETTERS, *names]), st.sampled_from(["", "", "", "", "?", "*", "+"])
    )
    way = st.lists(symbol, max_size=3).map(tuple)
    rules = st.lists(st.lists(way, min_size=1, max_size=3).map(tuple), min_size=3, max_size=3)
    return rules.map(lambda found: NaiveGrammar(dict(zip(names, found, strict=True))))
