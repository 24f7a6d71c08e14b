"""What is sent: random tokens, groups with a shared prefix, or the lines of a file."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sgl_like.errors import DataError

TOKEN_IDS = range(300, 1000)
"""What random ids are drawn from: neither special nor single bytes in the vocabularies of common models."""
WORDS = (
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
)


class Prompt(NamedTuple):
    """One request.

    Args:
        text: the prompt, as text or token ids.
        messages: a conversation instead.
        max_tokens: of the output.
        extra: fields of the body.
    """

    text: str | list[int] | None
    max_tokens: int
    messages: list[dict[str, Any]] | None = None
    extra: Mapping[str, Any] = {}


class Dataset(Protocol):
    """A source of prompts."""

    def prompts(self, seed: int) -> Iterator[Prompt]:
        """Prompts without end; another seed gives others."""
        ...


class RandomTokens:
    """Prompts of random tokens, in groups that begin alike.

    Args:
        input_len: tokens of a prompt after its prefix.
        output_len: tokens of an output.
        spread: lengths are drawn from this share of the given one up to it; 1 is the given one.
        groups: number of prefixes.
        prefix_len: tokens of a prefix; 0: prompts have nothing in common.
        as_text: words instead of ids, for endpoints that take no ids; most tokenizers make a token of each.
    """

    def __init__(
        self,
        input_len: int,
        output_len: int,
        *,
        spread: float = 1.0,
        groups: int = 1,
        prefix_len: int = 0,
        as_text: bool = False,
    ) -> None:
        self._lengths = input_len, output_len
        self._spread = spread
        self._groups = groups
        self._prefix_len = prefix_len
        self._as_text = as_text

    def prompts(self, seed: int) -> Iterator[Prompt]:
        """See `Dataset`. Groups take turns."""
        rng = random.Random(seed)
        prefixes = [rng.choices(TOKEN_IDS, k=self._prefix_len) for _ in range(self._groups)]
        for prefix in itertools.cycle(prefixes):
            ids = [*prefix, *rng.choices(TOKEN_IDS, k=self._draw(rng, self._lengths[0]))]
            text = " ".join(map(_word, ids)) if self._as_text else ids
            yield Prompt(text, self._draw(rng, self._lengths[1]))

    def _draw(self, rng: random.Random, length: int) -> int:
        return length if self._spread == 1 else rng.randint(max(1, int(length * self._spread)), length)


def _word(id: int) -> str:
    return WORDS[id % len(WORDS)]


class PromptFile:
    """The lines of a JSONL file, in an order that the seed decides, again and again.

    Each has ``prompt`` (text or ids) or ``messages``; ``max_tokens`` and ``body`` (fields of the request's body)
    are taken if they are there.

    Args:
        path: of the file.
        output_len: tokens of an output, where the line has no ``max_tokens``.

    Raises:
        DataError: a line is something else.
    """

    def __init__(self, path: Path, output_len: int) -> None:
        self._prompts = _read(path, output_len)

    def prompts(self, seed: int) -> Iterator[Prompt]:
        """See `Dataset`."""
        rng = random.Random(seed)
        while True:
            yield from rng.sample(self._prompts, len(self._prompts))


def _read(path: Path, output_len: int) -> Sequence[Prompt]:
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.append(_prompt(json.loads(line), output_len))
            except (ValueError, TypeError) as error:
                raise DataError(f"{path}:{number}: {error}") from None
    if not found:
        raise DataError(f"{path}: holds no prompts")
    return found


def _prompt(row: Any, output_len: int) -> Prompt:
    if not isinstance(row, dict):
        raise TypeError("a line must be a JSON object")
    text, messages = row.get("prompt"), row.get("messages")
    ids = isinstance(text, list) and all(type(id) is int for id in text)
    if messages is None and not (isinstance(text, str) or ids):
        raise TypeError("a line needs `prompt`, a text or a list of token ids, or `messages`")
    if messages is not None and not isinstance(messages, list):
        raise TypeError("`messages` must be a list")
    max_tokens, extra = row.get("max_tokens", output_len), row.get("body", {})
    if type(max_tokens) is not int or not isinstance(extra, dict):
        raise TypeError("`max_tokens` must be a whole number, and `body` an object")
    return Prompt(text if messages is None else None, max_tokens, messages, extra)
