"""Requests and their events as JSON, for recordings and caches, and back without loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sgl_like import errors
from sgl_like.errors import EngineError, RequestError, SglError
from sgl_like.frontend.backend.base import Segment
from sgl_like.runtime.logprobs import PlaceLogprobs, TokenLogprob
from sgl_like.runtime.protocol import FinishReason, Output, Usage

__all__ = [
    "call_key", "error_from_json", "error_to_json", "joined", "output_from_json", "output_to_json", "segments_key"
]  # fmt: skip


def call_key(prompt_ids: Sequence[int], asked: Mapping[str, Any]) -> str:
    """What makes two calls the same: the prompt, and parameters or choices. JSON, with the names in order.

    The order inside a schema counts, because properties come in that order.

    Raises:
        RequestError: a parameter cannot be written as JSON.
    """
    ordered = {name: asked[name] for name in sorted(asked) if asked[name] is not None}
    try:
        return json.dumps([list(prompt_ids), ordered])
    except (TypeError, ValueError) as error:
        raise RequestError(f"the parameters of this call cannot be written as JSON: {error}") from error


def segments_key(segments: Sequence[Segment], start: bool) -> str:
    """What makes two calls of `Backend.encode` the same."""
    listed = [
        [text, trusted, None if picture is None else [picture.mime, picture.data.hex()]]
        for text, trusted, picture in segments
    ]
    return json.dumps([listed, start])


def joined(events: Sequence[Output]) -> Output:
    """All events of a request as its terminal one, as if it had not been streamed."""
    places, at = [], 0
    for event in events:
        places += [at + place for place in event.forced]
        at += len(event.token_ids)
    last = events[-1]
    return Output(
        last.rid,
        "".join(event.text for event in events),
        tuple(token for event in events for token in event.token_ids),
        last.finish,
        last.error,
        last.usage,
        last.choice_logprobs,
        tuple(place for event in events for place in event.prompt_logprobs),
        tuple(place for event in events for place in event.output_logprobs),
        tuple(places),
        "".join(event.reasoning for event in events),
    )


def output_to_json(output: Output) -> dict[str, Any]:
    """An event, without its request's id; what is empty is left out."""
    usage = {each.name: getattr(output.usage, each.name) for each in fields(Usage)}
    data = {
        "text": output.text,
        "token_ids": output.token_ids,
        "finish": None if output.finish is None else output.finish.as_dict(),
        "error": None if output.error is None else error_to_json(output.error),
        "usage": {name: count for name, count in usage.items() if count},
        "choice_logprobs": output.choice_logprobs,
        "prompt_logprobs": output.prompt_logprobs,
        "output_logprobs": output.output_logprobs,
        "forced": output.forced,
        "reasoning": output.reasoning,
    }
    return {name: value for name, value in data.items() if value not in (None, "", (), {})}


def output_from_json(data: Mapping[str, Any], rid: str) -> Output:
    """An event of request `rid`.

    Raises:
        KeyError, TypeError, ValueError: the data is damaged.
    """
    finish, error, scores = data.get("finish"), data.get("error"), data.get("choice_logprobs")
    return Output(
        rid,
        data.get("text", ""),
        tuple(data.get("token_ids", ())),
        None if finish is None else FinishReason(**finish),
        None if error is None else error_from_json(error),
        Usage(**data.get("usage", {})),
        None if scores is None else tuple(tuple(row) for row in scores),
        tuple(_place(place) for place in data.get("prompt_logprobs", ())),
        tuple(_place(place) for place in data.get("output_logprobs", ())),
        tuple(data.get("forced", ())),
        data.get("reasoning", ""),
    )


def error_to_json(error: SglError) -> dict[str, Any]:
    """Class, message, and what else it holds as far as JSON can."""
    held = {name: value for name, value in vars(error).items() if _is_plain(value)}
    return {"type": type(error).__name__, "message": str(error), "held": held}


def error_from_json(data: Mapping[str, Any]) -> SglError:
    """The error again; of a class that is not known here, an `EngineError`."""
    kind = getattr(errors, data["type"], EngineError)
    if not (isinstance(kind, type) and issubclass(kind, SglError)):
        kind = EngineError
    error = kind.__new__(kind)
    Exception.__init__(error, data["message"])  # not its own, which may want other arguments
    vars(error).update(data.get("held", {}))
    return error


def _place(data: Sequence[Any]) -> PlaceLogprobs:
    token, top, asked = data
    return PlaceLogprobs(_entry(token), tuple(map(_entry, top)), tuple(map(_entry, asked)))


def _entry(data: Sequence[Any]) -> TokenLogprob:
    logprob, token, text = data
    return (logprob, token, text)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
