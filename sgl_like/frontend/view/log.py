"""The log of one state: what went into its prompt, step by step, with what is known about each step.

Steps are plain data that the prompt writes down as it changes. They cost a small object per operation; everything
that a trace needs besides (tokens of texts, kinds, probabilities) is worked out of them when somebody asks.

    steps    Given "<|user|>"  Given "2+2="  Given "<|end|>"   Generated "4"     Given "!"
             `-------------- covered by the request ---------´  given_ids, ids    not sent yet

Text is tokenised when a request needs it, so it is the request's step that knows the ids of the text before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgl_like.runtime.logprobs import PlaceLogprobs
from sgl_like.runtime.protocol import Usage

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = [
    "Ended",
    "Forked",
    "GenRecord",
    "Given",
    "Joined",
    "Log",
    "Requested",
    "Sample",
    "SelectRecord",
    "Step",
]


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Text that the program or the chat template gave. `message` counts messages, from 0; None outside of any."""

    text: str
    role: str | None
    message: int | None
    markup: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """One output: its text, all its tokens, places of those that a constraint forced, what the request reported."""

    text: str
    ids: tuple[int, ...]
    forced: tuple[int, ...]
    logprobs: tuple[PlaceLogprobs, ...]
    prompt_logprobs: tuple[PlaceLogprobs, ...]
    finish: Mapping[str, Any]
    usage: Usage


@dataclass(frozen=True, slots=True)
class GenRecord:
    """What a gen asked for and got. The program went on with the first of `samples`; `refused` are attempts that
    did not pass ``validate``, each with the reason.
    """

    name: str | None
    params: Mapping[str, Any]
    samples: Sequence[Sample]
    seconds: float
    refused: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class SelectRecord:
    """What a select scored. `logprobs` are those of the tokens of the taken choice, the last ones of the prompt."""

    name: str | None
    choices: Mapping[str, float | None]  # probability of each, if known
    logprobs: Sequence[float]
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Requested:
    """A request and what came of it.

    `given_ids` are the tokens from place `start` of the prompt on that stand for the texts `covered` and, of a select,
    for its choice.
    """

    text: str
    role: str | None
    message: int | None
    covered: tuple[Given, ...]
    given_ids: tuple[int, ...]
    start: int
    record: GenRecord | SelectRecord | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What is kept of a fork that was joined; the rest of its state need not stay."""

    log: Log
    usage: Usage


@dataclass(slots=True, eq=False)
class Forked:
    """Forks began here."""

    children: Sequence[Interpreter] | Sequence[Ended]


@dataclass(frozen=True, slots=True)
class Joined:
    """Forks ended here."""

    mode: str


Step = Given | Requested | Forked | Joined


class Log:
    """Steps of one state. A fork's begins where it parts from its parent, with the texts not sent yet.

    Args:
        pending: texts given before, of which no request has made tokens.
        attributed: how many ids of the prompt belong to steps.
    """

    def __init__(self, pending: Sequence[Given] = (), attributed: int = 0) -> None:
        self.steps: list[Step] = []
        self._pending = list(pending)
        self._attributed = attributed

    def child(self) -> Log:
        """The log of a fork."""
        return Log(self._pending, self._attributed)

    def given(self, text: str, role: str | None, message: int | None, markup: bool = False) -> None:
        """Text was added."""
        step = Given(text, role, message, markup)
        self.steps.append(step)
        self._pending.append(step)

    def requested(
        self,
        text: str,
        role: str | None,
        message: int | None,
        ids: Sequence[int],
        record: GenRecord | SelectRecord | None,
        sampled: int = 0,
    ) -> None:
        """A request wrote `text`.

        Args:
            text: what was added to the prompt.
            role: of the open message.
            message: its number.
            ids: all of the prompt, without the tokens sampled now.
            record: what is known about it.
            sampled: number of tokens sampled now that stay in the prompt.
        """
        start = self._attributed
        covered, new = tuple(self._pending), tuple(ids[start:])
        self.steps.append(Requested(text, role, message, covered, new, start, record))
        self._pending.clear()
        self._attributed = len(ids) + sampled

    def forked(self, children: Sequence[Interpreter]) -> None:
        """Forks began."""
        self.steps.append(Forked(children))

    def joined(self, children: Sequence[Interpreter], mode: str) -> None:
        """Forks ended well."""
        for step in self.steps:
            if isinstance(step, Forked) and step.children[0] is children[0]:
                step.children = [Ended(child.prompt.log, child.usage) for child in children]
        self.steps.append(Joined(mode))
