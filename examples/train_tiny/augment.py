"""Fresh variants of SNIPS rows for every epoch.

A row is cut into literal text and slot values; values are swapped for others of their slot, words inside
open-class values are replaced so that only copying can predict them, and case and punctuation vary.
Labels stay true by construction: the text is put together from the very values that go into the label.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from prepare import Row, align

TITLES = {"object_name", "movie_name", "entity_name", "track", "album"}
PLACES = {"city", "state", "country", "geographic_poi", "poi"}
OPEN = TITLES | PLACES | {"artist", "playlist", "restaurant_name", "served_dish", "cuisine", "genre"}
OPEN |= {"party_size_description"}
NOISY = TITLES | {"artist", "playlist", "restaurant_name", "city", "geographic_poi", "poi"}
POLITE = ("please ", "can you ", "could you please ", "i want you to ", "hey, ", "would you ", "now ")


class Piece(NamedTuple):
    """A stretch of a row's text: literal (`slot` is None) or a slot value."""

    text: str
    slot: str | None


def cut(row: Row) -> list[Piece]:
    """The row as pieces, in order; [] if its slots cannot be aligned."""
    spans = align(row)
    if len(spans) != len(row["slots"]):
        return []
    pieces, at = [], 0
    for span in spans:
        pieces += [
            Piece(row["text"][at : span.start], None),
            Piece(row["text"][span.start : span.end], span.name),
        ]
        at = span.end
    pieces.append(Piece(row["text"][at:], None))
    return [piece for piece in pieces if piece.text]


def join(intent: str, pieces: Sequence[Piece]) -> Row:
    """The row that the pieces spell."""
    slots = {piece.slot: piece.text for piece in pieces if piece.slot is not None}
    return {"text": "".join(piece.text for piece in pieces), "intent": intent, "slots": slots}


class Augmenter:
    """Draws variants; holds the pools of values, built from training rows only."""

    def __init__(self, rows: Sequence[Row], keep: float = 0.4) -> None:
        self.keep = keep
        self.cuts = [cut(row) for row in rows]
        self.rows = rows
        self.open: dict[str, list[str]] = defaultdict(list)
        self.closed: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        words: list[str] = []
        for row, pieces in zip(rows, self.cuts, strict=True):
            for before, piece in zip([Piece("", None), *pieces], pieces, strict=False):
                if piece.slot in OPEN:
                    self.open[piece.slot].append(piece.text)
                    words += piece.text.split() if piece.slot in NOISY else []
                elif piece.slot is not None:
                    self.closed[self._context(row["intent"], piece.slot, before)].append(piece.text)
        self.distinct = {slot: sorted(set(values)) for slot, values in self.open.items()}
        self.words = sorted(set(words))
        self.titles = sorted({value for slot in TITLES for value in self.open[slot]})

    @staticmethod
    def _context(intent: str, slot: str, before: Piece) -> tuple[str, str, str]:
        """Closed-class values are swapped only after the same word (`at` five, not `at` in May)."""
        last = before.text.split()[-1:] if before.slot is None else ["<slot>"]
        return intent, slot, " ".join(last).lower()

    def variant(self, index: int, rng: random.Random) -> Row:
        """Row `index` itself with probability `keep`, else a fresh variant of it."""
        row, pieces = self.rows[index], list(self.cuts[index])
        if not pieces or rng.random() < self.keep:
            return row
        before = Piece("", None)
        for k, piece in enumerate(pieces):
            if piece.slot is not None:
                pieces[k] = Piece(self._value(row["intent"], piece, before, rng), piece.slot)
            elif rng.random() < 0.04:
                pieces[k] = Piece(_typo(piece.text, rng), None)
            before = piece
        return join(row["intent"], _surface(pieces, rng))

    def _value(self, intent: str, piece: Piece, before: Piece, rng: random.Random) -> str:
        slot, value = piece.slot or "", piece.text
        if slot not in OPEN:
            return (
                rng.choice(self.closed[self._context(intent, slot, before)]) if rng.random() < 0.4 else value
            )
        if rng.random() < 0.6:
            pool = self.open[slot] if rng.random() < 0.5 else self.distinct[slot]
            if slot in TITLES and rng.random() < 0.15:
                pool = self.titles
            swapped = rng.choice(pool)
            value = swapped.lower() if value.islower() and rng.random() < 0.6 else swapped
        if slot in NOISY and rng.random() < 0.2:
            value = self._noise(value, slot, rng)
        if rng.random() < 0.08:
            value = rng.choice((str.lower, str.title, str.upper, str.capitalize))(value)
        return value

    def _noise(self, value: str, slot: str, rng: random.Random) -> str:
        """Change, drop or add one word, or invent one."""
        words = value.split(" ")
        k = rng.randrange(len(words))
        kind = rng.random()
        if kind < 0.4:
            words[k] = rng.choice(self.words)
        elif kind < 0.65:
            words[k] = _invent(rng.choice(self.words), rng.choice(self.words), rng)
        elif kind < 0.8 and len(words) > 1:
            del words[k]
        elif slot not in PLACES:
            words.insert(k, rng.choice(self.words))
        return " ".join(words)


def _invent(one: str, two: str, rng: random.Random) -> str:
    """A word nobody knows: the head of one and the tail of another."""
    return one[: rng.randint(1, len(one))] + two[rng.randint(0, len(two) - 1) :]


def _typo(text: str, rng: random.Random) -> str:
    """Drop, double or swap one inner letter of literal text."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    i = rng.choice(places)
    middle = rng.choice(("", text[i] * 2, None))
    return (
        text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        if middle is None
        else text[:i] + middle + text[i + 1 :]
    )


def _surface(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Vary the case of the whole row, its last punctuation mark and its opening."""
    roll = rng.random()
    if roll < 0.14:
        pieces = [Piece(piece.text.lower(), piece.slot) for piece in pieces]
    elif roll < 0.17:
        pieces = [Piece(piece.text.title(), piece.slot) for piece in pieces]
    elif roll < 0.22 and pieces[0].slot is None:
        first = pieces[0].text
        flipped = first[0].lower() if first[0].isupper() else first[0].upper()
        pieces[0] = Piece(flipped + first[1:], None)
    last = pieces[-1]
    if last.slot is None and last.text[-1] in ".?!" and rng.random() < 0.25:
        pieces[-1] = Piece(last.text[:-1], None)
    elif (last.slot is not None or last.text[-1].isalnum()) and rng.random() < 0.12:
        pieces.append(Piece(rng.choice((".", "?", "!", " please", ", please")), None))
    if rng.random() < 0.04:
        pieces.insert(0, Piece(rng.choice(POLITE), None))
    return [piece for piece in pieces if piece.text]
