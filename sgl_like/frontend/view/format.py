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
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sgl_like.errors import DataError

__all__ = [
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

T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run did."""

    program: str
    model: str
    run: Branch

    def to_json(self) -> dict[str, Any]:
        """Plain data that `json.dumps` writes."""
        return {"format": FORMAT, "version": VERSION, **_to_json(self)}

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
        return _read(cls, rest, where)


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


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {
            each.name: _to_json(getattr(value, each.name))
            for each in fields(value)
            if each.name == "type" or getattr(value, each.name) != _default(each)
        }
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else repr(value)


def _default(each: Any) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _read(kind: type[T], value: Any, where: str) -> T:
    """A dataclass of the right fields, from a JSON object."""
    if not isinstance(value, dict):
        raise DataError(f"{where}: an object is needed, not {_name(value)}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(value.keys() - hints.keys())
    missing = [
        each.name
        for each in fields(kind)  # type: ignore[arg-type]
        if _default(each) is MISSING and each.name not in value
    ]
    if unknown or missing:
        raise DataError(
            f"{where}: there is no {missing[0]!r}" if missing else f"{where}: unknown {unknown[0]!r}"
        )
    return kind(**{name: _value(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` if it is of `kind`: a class, a literal, a list, a dict, or one of several."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [each for each in args if each is not type(None)]
        if len(kinds) > 1:  # parts and forks
            fork = isinstance(value, dict) and value.get("type") == "fork"
            return _read(Fork if fork else Part, value, where)
        return _value(kinds[0], value, where)
    if origin is list and isinstance(value, list):
        return [_value(args[0], item, f"{where}[{number}]") for number, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {name: _value(args[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin is Literal and value in args:
        return value
    if kind is Any or (kind is float and type(value) is int):
        return value
    if is_dataclass(kind):
        return _read(typing.cast(Any, kind), value, where)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise DataError(f"{where}: {_name(value)} does not belong here")


def _name(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
