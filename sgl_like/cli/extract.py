"""The job itself: a program of one system, one user and one assistant turn, and what comes of each row.

That rows run side by side, within a window and in order, is `run_batch`'s.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

from sgl_like.cli.rows import Row
from sgl_like.cli.schema import Schema
from sgl_like.errors import EngineError, RequestAborted

DEFAULT_SYSTEM = "Turn the utterance into JSON."
DEFAULT_MAX_TOKENS = 256
DEFAULT_CONCURRENCY = 64


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of the model for every row.

    Args:
        schema: of the output.
        system: system message; empty for none.
        max_tokens: most tokens per output. One that needs more is an error of its row.
        property_order: ``"schema"`` or ``"any"``, see `sgl_like.gen`.
    """

    schema: Schema
    system: str = DEFAULT_SYSTEM
    max_tokens: int = DEFAULT_MAX_TOKENS
    property_order: Literal["any", "schema"] = "any"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one row: `output` is a JSON value if `error` is ``None``. Counts are tokens."""

    output: Any = None
    error: str | None = None
    prompt: int = 0
    cached: int = 0
    sampled: int = 0
    forced: int = 0


@dataclass(slots=True)
class Totals:
    """Sums over the rows of a run."""

    rows: int = 0
    failed: int = 0
    prompt: int = 0
    cached: int = 0
    sampled: int = 0
    forced: int = 0
    started: float = field(default_factory=monotonic)
    seconds: float = 0.0

    def add(self, answer: Answer) -> None:
        """Count one row; the clock reads up to it."""
        self.rows += 1
        self.failed += answer.error is not None
        self.prompt += answer.prompt
        self.cached += answer.cached
        self.sampled += answer.sampled
        self.forced += answer.forced
        self.seconds = monotonic() - self.started

    @property
    def rows_per_s(self) -> float:
        """Rows per second so far, loading the model not included."""
        return self.rows / self.seconds if self.seconds else 0.0


def run_job(
    rows: Iterable[Row],
    job: Job,
    backend: Any,
    write: Callable[[Row, Answer], None],
    totals: Totals,
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
) -> None:
    """Run every row and hand it to `write` with its answer, in order, as soon as it and all before are done.

    Args:
        rows: read as they are needed.
        job: what to ask.
        backend: what answers, e.g. a `sgl_like.Runtime`.
        write: called for every row. If it raises, what is running is cancelled.
        totals: counts what is done.
        concurrency: rows in flight.

    Raises:
        EngineError: the engine has died.
    """
    waiting: deque[Row] = deque()

    def arguments() -> Iterator[dict[str, str]]:
        for row in rows:
            waiting.append(row)
            yield {"text": row.text}

    states = extraction_program(job).run_batch(
        arguments(), backend=backend, generator_style=True, num_threads=concurrency, temperature=0
    )
    with closing(states):
        for state in states:
            answer = _answer(state, job)
            totals.add(answer)
            write(waiting.popleft(), answer)


def extraction_program(job: Job) -> Any:
    """The `@sgl.function` that turns a text into JSON, in variable ``json``."""
    import sgl_like as sgl

    @sgl.function
    def extract(s: Any, text: str) -> None:
        if job.system:
            s += sgl.system(job.system)
        s += sgl.user(text)
        s += sgl.assistant(
            sgl.gen(
                "json",
                max_tokens=job.max_tokens,
                json_schema=job.schema,
                property_order=job.property_order,
                temperature=0,
            )
        )

    return extract


def _answer(state: Any, job: Job) -> Answer:
    problem = state.error()
    if problem is not None:
        _raise_if_engine_died(problem)
        return Answer(error=str(problem))
    meta: Mapping[str, Any] = state.get_meta_info("json")
    forced = meta["forced_tokens"]
    counts = (meta["prompt_tokens"], meta["cached_tokens"], meta["completion_tokens"] - forced, forced)
    if meta["finish_reason"]["type"] == "length":
        return Answer(None, f"the output was cut at {job.max_tokens} tokens; raise --max-tokens", *counts)
    try:
        return Answer(json.loads(state["json"], parse_float=_finite), None, *counts)
    except (ValueError, RecursionError) as error:
        return Answer(None, f"the output is no usable JSON: {error}", *counts)


def _raise_if_engine_died(problem: BaseException) -> None:
    """A dead engine is no property of a row: stop, so that the rows to come are not written as failed."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, EngineError) and not isinstance(cause, RequestAborted):
            raise cause
        cause = cause.__cause__


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text} is too large")
    return number
