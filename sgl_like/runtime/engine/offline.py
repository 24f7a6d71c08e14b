"""The arguments and results of `Engine.generate`: one prompt or many, text or ids, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgl_like.errors import RequestError
from sgl_like.runtime.logprobs import LogprobParams, PlaceLogprobs, logprob_meta
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, Usage
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer


class Call(NamedTuple):
    """A `generate` call as requests; `many` says whether the result is a list."""

    requests: list[GenerateRequest]
    many: bool


Given = Mapping[str, Any]
"""Values by parameter, one for all prompts, or a list with one for each."""


def read_call(
    tokenizer: Tokenizer,
    prompt: str | Sequence[str] | None,
    input_ids: Sequence[Any] | None,
    sampling_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None,
    logprobs: Given,
    options: Mapping[str, Any],
) -> Call:
    """Turn the arguments into requests: for each prompt as many as its parameters' ``n``, one after the other.

    `options` are fields of all requests.

    Raises:
        RequestError: they contradict each other, or a parameter is wrong.
    """
    if (prompt is None) == (input_ids is None):
        raise RequestError("give either prompt (text) or input_ids (token ids), exactly one of them")
    if prompt is not None:
        many = not isinstance(prompt, str)
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise RequestError(f"prompt[{i}] must be a string, not {type(text).__name__}")
        ids: list[Sequence[int]] = [tokenizer.encode(text) for text in texts]
    else:
        assert input_ids is not None
        many = bool(input_ids) and not isinstance(input_ids[0], int)
        ids = list(input_ids) if many else [input_ids]
    params = _params(sampling_params, len(ids))
    copies = {each.n for each in params}
    if len(copies) > 1:
        raise RequestError(f"n must be the same for all prompts of a call, not {sorted(copies)}")
    requests = [
        GenerateRequest(tokens, each.for_copy(index), wanted, **options)
        for tokens, each, wanted in zip(ids, params, _logprobs(logprobs, len(ids), many), strict=True)
        for index in range(each.n)
    ]
    return Call(requests, many or copies != {1})


def _logprobs(given: Given, count: int, many: bool) -> list[LogprobParams | None]:
    """What each prompt's request is to report; each value may be given once or, for many prompts, as a list."""
    columns: dict[str, list[Any]] = {}
    for name, value in given.items():
        listed = isinstance(value, list) and many
        if name == "token_ids_logprob":  # a list itself
            listed = listed and all(each is None or isinstance(each, list) for each in value)
        if listed and len(value) != count:
            raise RequestError(f"{name} is a list of {len(value)} for {count} prompts; give one each")
        columns[name] = value if listed else [value] * count
    return [
        LogprobParams.from_options(**{name: column[i] for name, column in columns.items()})
        for i in range(count)
    ]


def _params(
    given: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, count: int
) -> list[SamplingParams]:
    if given is None or isinstance(given, Mapping):
        return [SamplingParams.from_dict(given or {})] * count
    if len(given) != count:
        raise RequestError(f"sampling_params is a list of {len(given)} for {count} prompts; give one each")
    return [SamplingParams.from_dict(each) for each in given]


@dataclass(slots=True)
class Collector:
    """Gathers one request's events into SGLang's result dict."""

    request: GenerateRequest
    started: float
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    error: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    prompt_logprobs: list[PlaceLogprobs] = field(default_factory=list)
    output_logprobs: list[PlaceLogprobs] = field(default_factory=list)
    embedding: tuple[float, ...] | None = None
    choice_logprobs: tuple[tuple[float, ...], ...] | None = None
    forced: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rid(self) -> str:
        """The request's id."""
        return self.request.rid

    @property
    def done(self) -> bool:
        """Whether the terminal event has come."""
        return self.finish is not None

    def add(self, output: Output, index: int | None) -> dict[str, Any]:
        """Take in an event; returns the result so far.

        Raises:
            SglError: the request failed.
        """
        self.take(output)
        chunk = self.result()
        if index is not None:
            chunk["index"] = index
        return chunk

    def take(self, output: Output) -> None:
        """Take in an event."""
        self.forced += [len(self.token_ids) + place for place in output.forced]
        self.text += output.text
        self.token_ids += output.token_ids
        self.prompt_logprobs += output.prompt_logprobs
        self.output_logprobs += output.output_logprobs
        self.finish, self.error, self.usage = output.finish, output.error, output.usage
        self.embedding = output.embedding
        self.choice_logprobs = output.choice_logprobs
        self.seconds = time.perf_counter() - self.started

    def result(self) -> dict[str, Any]:
        """``{"text", "output_ids", "meta_info"}``, or ``{"embedding", "meta_info"}``.

        Raises:
            SglError: the request failed.
        """
        if self.error is not None:
            raise self.error
        usage, wanted = self.usage, self.request.logprobs
        logprobs = logprob_meta(wanted, self.prompt_logprobs, self.output_logprobs) if wanted else {}
        own: dict[str, Any] = {"text": self.text, "output_ids": list(self.token_ids)}
        if self.request.embed:
            own = {"embedding": list(self.embedding or ())}
        return {
            **own,
            "meta_info": {
                "id": self.rid,
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cached_tokens": usage.cached_tokens,
                "forced_tokens": usage.forced_tokens,
                "computed_tokens": usage.computed_tokens,
                "draft_tokens": usage.draft_tokens,
                "accepted_tokens": usage.accepted_tokens,
                "finish_reason": self.finish.as_dict() if self.finish else None,
                "e2e_latency": self.seconds,
                **logprobs,
            },
        }
