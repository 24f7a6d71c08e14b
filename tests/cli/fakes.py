"""An extractor without a model: what it answers depends on the text alone, as with greedy decoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sgl_like.cli.extract import Answer, Extractor


def answer(text: str) -> Answer:
    """Echo the text; a text with ``fail`` in it is an error."""
    if "fail" in text:
        return Answer(error=f"cannot do {text!r}", prompt=3)
    return Answer(output={"echo": text}, prompt=10, cached=6, sampled=2, forced=3)


def fake_engine(window: int = 4, stop_after: int | None = None, problem: BaseException | None = None) -> Any:
    """A stand-in for `engine_extractor`, reading `window` texts ahead.

    After `stop_after` answers it raises `problem`.
    """

    def extract(texts: Iterable[str]) -> Iterator[Answer]:
        given = 0
        texts = iter(texts)
        while chunk := list(islice(texts, window)):
            for text in chunk:
                if given == stop_after and problem is not None:
                    raise problem
                given += 1
                yield answer(text)

    @contextmanager
    def engine(job: object, **options: object) -> Iterator[Extractor]:
        yield extract

    return engine
