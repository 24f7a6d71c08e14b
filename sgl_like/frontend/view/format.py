"""A trace as data: what a run did, complete enough to be shown without the run, and its JSON.

    Trace ── Branch ── parts: Part (text, gen or select) | Fork ── branches: Branch ...

The tokens of a part are cut so that their texts, without what was `cut` off, join to the part's text. A character
belongs to the token that completes it; a token that only begins one has the text "". Values that are defaults are left
out of the JSON, and numbers that JSON does not have (the logarithm of 0) are null.
"""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from sgl_like.errors import DataError

__all__ = [
    "COUNTS",
    "KINDS",
    "Alternative",
    "Branch",
    "Choice",
    "Failure",
    "Fork",
    "Part",
    "Refused",
    "Token",
    "Trace",
    "plain",
    "read_trace",
]

FORMAT, VERSION = "sgl-like-trace", 1
Kind = Literal["prompt", "cached", "sampled", "forced", "selected", "healed"]
KINDS: Mapping[Kind, str] = {
    "prompt": "given, and computed by the model",
    "cached": "given, and reused from the cache",
    "sampled": "chosen by the model",
    "forced": "the only text that the constraint allowed",
    "selected": "of the choice that a select took",
    "healed": "begins in the prompt and ends in what follows it",
}
"""What can be said of a token."""

COUNTS: Mapping[str, str] = {
    "prompt_tokens": "prompt",
    "cached_tokens": "cached",
    "computed_tokens": "computed",
    "completion_tokens": "output",
    "forced_tokens": "forced",
}
"""What is shown of usage, and under which name."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have come, or an answer that could have been taken."""

    text: str
    logprob: float | None = None
    id: int | None = None

    @property
    def probability(self) -> float | None:
        """Between 0 and 1."""
        return None if self.logprob is None else math.exp(min(self.logprob, 0.0))


@dataclass(frozen=True, slots=True)
class Token:
    """One token, or the part of it that lies in one text.

    Args:
        text: its characters.
        kind: one of `KINDS`.
        id: in the model's vocabulary, if known.
        logprob: natural logarithm of its probability, if asked for.
        top: the likeliest tokens at its place, if asked for.
        cut: so many characters at its end are not part of the output: of a stop string, or an end-of-sequence token.
        joined: it begins in the text before.
    """

    text: str
    kind: Kind
    id: int | None = None
    logprob: float | None = None
    top: list[Alternative] = field(default_factory=list)
    cut: int = 0
    joined: bool = False

    @property
    def probability(self) -> float | None:
        """Between 0 and 1."""
        return None if self.logprob is None else math.exp(min(self.logprob, 0.0))

    @property
    def kept(self) -> str:
        """What of it is in the text."""
        return self.text[: len(self.text) - self.cut]


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of a select, and its probability among all choices."""

    text: str
    probability: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """An output that did not pass ``validate``. It is not part of the prompt."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Part:
    """Text that was given, generated or selected.

    Args:
        type: which of these.
        text: all of it, with the reasoning of a gen even if that is separated.
        tokens: its tokens; None where they are not known.
        role: of the message that it belongs to.
        message: number of that message; None outside of messages.
        markup: whether the chat template gave it.
        name: of the variable.
        params: what the gen asked for.
        finish: why it ended.
        usage: numbers of tokens.
        seconds: how long it took.
        choices: of a select.
        others: with ``n`` greater than 1, the outputs that the program did not go on with.
        refused: outputs before this one that did not pass ``validate``.
        broken: the output ended with the error of its branch.
    """

    type: Literal["text", "gen", "select"]
    text: str
    tokens: list[Token] | None = None
    role: str | None = None
    message: int | None = None
    markup: bool = False
    name: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    finish: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    choices: list[Choice] = field(default_factory=list)
    others: list[Part] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    broken: bool = False

    @property
    def ended_by(self) -> str:
        """Why it ended, in a few words."""
        kind, matched = str(self.finish.get("type", "")), self.finish.get("matched")
        return f"{kind} {json.dumps(matched, ensure_ascii=False)}" if isinstance(matched, str) else kind


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, as in `ProgramError`."""

    message: str
    node: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Fork:
    """Branches that began here; `join` says how they came together again, if they did."""

    branches: list[Branch]
    join: str | None = None
    type: Literal["fork"] = "fork"


@dataclass(frozen=True, slots=True)
class Branch:
    """What one state did, a fork from where it began."""

    parts: list[Part | Fork]
    usage: dict[str, int] = field(default_factory=dict)
    error: Failure | None = None
    running: bool = False

    def messages(self) -> Iterator[list[Part] | Fork]:
        """The parts of each message together, and the forks between them."""
        together: list[Part] = []
        for part in self.parts:
            if together and (isinstance(part, Fork) or part.message != together[0].message):
                yield together
                together = []
            if isinstance(part, Fork):
                yield part
            else:
                together.append(part)
        if together:
            yield together


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run did."""

    program: str
    model: str
    run: Branch

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json.dumps` writes."""
        return {"format": FORMAT, "version": VERSION, **plain(self)}

    @classmethod
    def from_json(cls, data: Any, where: str = "trace") -> Trace:
        """From what `to_json` made.

        Raises:
            DataError: it is something else; the message says where.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise DataError(f'{where}: not a trace (there is no "format": "{FORMAT}")')
        if data.get("version") != VERSION:
            raise DataError(
                f"{where}: a trace of version {data.get('version')!r}; this program reads version {VERSION}"
            )
        rest = {name: value for name, value in data.items() if name not in ("format", "version")}
        try:
            return typing.cast(Trace, _reader(typing.cast(Any, cls))(rest))
        except _Misplaced as error:
            raise DataError(f"{where}{error.path}: {error}") from None


def read_trace(path: str | Path) -> Trace:
    """The trace in a file.

    Raises:
        DataError: there is no such file, or it holds no trace.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    return Trace.from_json(data, str(path))


def plain(value: Any) -> Any:
    """`value` as JSON has it; what JSON has nothing for becomes its description."""
    if is_dataclass(value):
        return {
            each.name: plain(getattr(value, each.name))
            for each in fields(value)
            if each.name == "type" or getattr(value, each.name) != _default(each)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else repr(value)


def _default(each: Any) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


class _Misplaced(Exception):
    """Something is wrong with a value; the way to it grows as this is passed up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.path = ""


def _misplaced(value: Any) -> _Misplaced:
    text = json.dumps(value)
    return _Misplaced(f"{text if len(text) <= 40 else text[:37] + '...'} does not belong here")


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What takes a JSON value to a value of `kind`: a class, a literal, a list, a dict, or one of several."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind == Part | Fork:
        return lambda value: _reader(
            Fork if isinstance(value, dict) and value.get("type") == "fork" else Part
        )(value)
    if origin in (typing.Union, types.UnionType):  # or None
        (other,) = (each for each in args if each is not type(None))
        return lambda value: None if value is None else _reader(other)(value)
    if origin is list:
        return lambda value: list(_all(args[0], value, list, enumerate).values())
    if origin is dict:
        return lambda value: _all(args[1], value, dict, dict.items)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    return lambda value: _plain(value, kind, args)


def _plain(value: Any, kind: Any, literals: Sequence[Any]) -> Any:
    if kind is Any or type(value) is kind or (kind is float and type(value) is int):
        return value
    if isinstance(value, str) and value in literals:
        return value
    raise _misplaced(value)


def _all(
    kind: Any, value: Any, holder: type, items: Callable[[Any], Iterable[tuple[Any, Any]]]
) -> dict[Any, Any]:
    if not isinstance(value, holder):
        raise _misplaced(value)
    read, done = _reader(kind), {}
    for place, item in items(value):
        try:
            done[place] = read(item)
        except _Misplaced as error:
            error.path = f"[{place}]{error.path}"
            raise
    return done


def _dataclass_reader(kind: Any) -> Callable[[Any], Any]:
    needed = {each.name for each in fields(kind) if _default(each) is MISSING}
    readers = {name: _reader(hint) for name, hint in typing.get_type_hints(kind).items()}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Misplaced(f"an object is needed, not {json.dumps(value)[:40]}")
        for name in needed - value.keys():
            raise _Misplaced(f"there is no {name!r}")
        given = {}
        for name, item in value.items():
            if name not in readers:
                raise _Misplaced(f"unknown {name!r}")
            try:
                given[name] = readers[name](item)
            except _Misplaced as error:
                error.path = f".{name}{error.path}"
                raise
        return kind(**given)

    return read
