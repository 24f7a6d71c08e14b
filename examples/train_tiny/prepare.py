"""Read SNIPS rows, split off 700 dev rows, and align slots with the text.

    python examples/train_tiny/prepare.py --data /work/shared/data/snips/train.jsonl --out DIR

writes DIR/train.jsonl and DIR/dev.jsonl. The split is a pure function of the rows (fixed seed, 100 rows of
each intent); training rows whose lower-cased text is also in dev are dropped.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

DEV_PER_INTENT = 100
SPLIT_SEED = 20240


class Row(TypedDict):
    """One utterance; every slot value is a substring of the text."""

    text: str
    intent: str
    slots: dict[str, str]


class Span(NamedTuple):
    """Slot `name` covers `text[start:end]`."""

    start: int
    end: int
    name: str


class Split(NamedTuple):
    """The two sides of the split, each in the order of the input."""

    train: list[Row]
    dev: list[Row]


def read_rows(path: Path) -> list[Row]:
    """Rows of a JSON-lines file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def split_rows(rows: Sequence[Row]) -> Split:
    """Split off the dev rows: 100 of each intent by a fixed seed, no text on both sides (case ignored)."""
    rng = random.Random(SPLIT_SEED)
    chosen: set[int] = set()
    for intent in sorted({row["intent"] for row in rows}):
        candidates = [i for i, row in enumerate(rows) if row["intent"] == intent]
        chosen.update(rng.sample(candidates, min(DEV_PER_INTENT, len(candidates) // 2)))
    dev = [rows[i] for i in sorted(chosen)]
    held = {row["text"].lower() for row in dev}
    train = [row for i, row in enumerate(rows) if i not in chosen and row["text"].lower() not in held]
    return Split(train, dev)


def _whole_word(text: str, start: int, end: int) -> bool:
    before = start == 0 or not text[start - 1].isalnum() or not text[start].isalnum()
    after = end == len(text) or not text[end].isalnum() or not text[end - 1].isalnum()
    return before and after


def _find(text: str, value: str, start: int) -> int:
    """First place of `value` at or after `start`, at word boundaries if there is such a place; -1 if none."""
    at = text.find(value, start)
    while at >= 0 and not _whole_word(text, at, at + len(value)):
        at = text.find(value, at + 1)
    return at if at >= 0 else text.find(value, start)


def align(row: Row) -> list[Span]:
    """Where the slot values are, in order of the text; [] for a row that cannot be aligned without overlap.

    The data lists slots in text order, so each value is searched for after the one before; when that fails,
    longest value first in whatever place is still free.
    """
    text, spans, at = row["text"], list[Span](), 0
    for name, value in row["slots"].items():
        start = _find(text, value, at)
        if start < 0:
            break
        spans.append(Span(start, start + len(value), name))
        at = spans[-1].end
    if len(spans) == len(row["slots"]):
        return spans
    spans, free = [], text
    for name, value in sorted(row["slots"].items(), key=lambda item: -len(item[1])):
        start = _find(free, value, 0)
        if start < 0:
            return []
        spans.append(Span(start, start + len(value), name))
        free = free[:start] + "\0" * len(value) + free[start + len(value) :]
    return sorted(spans)


def ordered(row: Row) -> Row:
    """The row with its slots in text order (unchanged if it cannot be aligned)."""
    spans = align(row)
    slots = {span.name: row["slots"][span.name] for span in spans} if spans else row["slots"]
    return {"text": row["text"], "intent": row["intent"], "slots": slots}


def main() -> None:
    """Write both sides of the split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    split = split_rows([ordered(row) for row in read_rows(args.data)])
    args.out.mkdir(parents=True, exist_ok=True)
    write_rows(args.out / "train.jsonl", split.train)
    write_rows(args.out / "dev.jsonl", split.dev)
    print(f"{len(split.train)} training rows, {len(split.dev)} dev rows in {args.out}")


if __name__ == "__main__":
    main()
