"""How engines spell parameters: the vocabulary in which `dialects` is written.

A `Dialect` has up to two modes, one for messages and one for plain text. A mode is a wire, and for every parameter it
knows a `Spell`: the place in the request's body, and how the value is written there. What a mode has no spell for it
cannot do, and nobody needs to list that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgl_like.errors import ConstraintError
from sgl_like.frontend.backend.remote.wire import Wire
from sgl_like.runtime.logprobs import LogprobParams

__all__ = ["OMIT", "SAME", "Dialect", "Mode", "Spell", "choice_regex", "merged", "placed", "schema_object"]

OMIT: Any = object()
SAME: Any = object()


def _itself(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Spell:
    """How one parameter is written.

    Args:
        place: where, with dots between the keys of objects, e.g. ``"options.num_predict"``; an empty one: what
            `write` gives is merged into the body itself; ``None``: it need not be said, since it only permits.
        neutral: what to write for the value that changes nothing: `OMIT`: nothing, where the engine's own default
            changes nothing either; `SAME`: the value itself; or another value that turns it off there.
        write: the value in the engine's form.
    """

    place: str | None
    neutral: Any = OMIT
    write: Callable[[Any], Any] = _itself

    def fields(self, value: Any, is_neutral: bool) -> dict[str, Any]:
        """What goes into the body."""
        if self.place is None or (is_neutral and self.neutral is OMIT):
            return {}
        if is_neutral and self.neutral is not SAME:
            return placed(self.place, self.neutral)
        return placed(self.place, self.write(value))


@dataclass(frozen=True)
class Mode:
    """One way in which an engine can be asked.

    Args:
        wire: how requests and answers look.
        params: parameters it knows, under the names of `SamplingParams`.
        logprobs: fields that ask for log-probabilities of the output; ``None``: it has none.
        prompt_logprobs: whether those of the prompt and of chosen tokens can be had as well.
        prefill: fields that ask to continue a message that is begun; ``None``: it cannot. Only for messages.
        choice: holds the output to one of several texts.
        chosen: which of the texts an output so held stands for.
        scoring: name of the way in which texts can be scored (`scoring.py`), if there is one.
        images: whether messages may have images.
        roles: that messages may have; ``None``: what the model's template knows.
        counts: whether events of a stream say how many tokens there are so far.
        resume: fields that ask to go on after output that is known already, for its tokens and the number of them whose
            log-probabilities are known; ``None``: only as a prompt that is longer.
    """

    wire: Wire
    params: Mapping[str, Spell]
    logprobs: Callable[[LogprobParams], dict[str, Any]] | None = None
    prompt_logprobs: bool = False
    prefill: Mapping[str, Any] | None = None
    choice: Spell | None = None
    chosen: Callable[[str], str] = _itself
    scoring: str | None = None
    counts: bool = False
    resume: Callable[[Sequence[int], int], dict[str, Any]] | None = None
    images: bool = True
    roles: frozenset[str] | None = None


@dataclass(frozen=True)
class Dialect:
    """An engine.

    Args:
        name: for users: ``OpenAICompatible(dialect=name)``.
        title: for errors.
        chat: its mode for messages.
        text: its mode for plain text.
        owners: values of ``owned_by`` in its list of models, by which it is recognised.
    """

    name: str
    title: str
    chat: Mode | None = None
    text: Mode | None = None
    owners: frozenset[str] = field(default_factory=frozenset)


def placed(place: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``"a.b"``; `value` itself for the empty place."""
    if not place:
        assert isinstance(value, dict), "only objects are merged into a body"
        return value
    for key in reversed(place.split(".")):
        value = {key: value}
    result: dict[str, Any] = value
    return result


def merged(body: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """`body` with `fields` in it, objects merged key by key."""
    for key, value in fields.items():
        inside = body.get(key)
        body[key] = merged(inside, value) if isinstance(inside, dict) and isinstance(value, dict) else value
    return body


def schema_object(text: str) -> Any:
    """A JSON Schema as an object.

    Raises:
        ConstraintError: it is not JSON.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConstraintError(f"json_schema is not JSON: {error}") from error


def choice_regex(choices: tuple[str, ...]) -> str:
    """A regex that matches these texts and nothing else."""
    special = set("\\.^$*+?{}[]|()-")
    escaped = ("".join("\\" + char if char in special else char for char in choice) for choice in choices)
    return f"({'|'.join(escaped)})"
