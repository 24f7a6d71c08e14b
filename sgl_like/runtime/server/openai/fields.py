"""Fields that completions and chats have in common: OpenAI's, and those of vLLM and SGLang under their names.

`priority` is vLLM's here: requests with a smaller one come first. (SGLang's native ``/generate`` has it the other way.)
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.constraints import ANY_OBJECT, Constraint, constraint_params
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.sampling import make_params

Priority = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31)]
Salt = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

NAMES = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "no_stop_trim": "include_stop_str_in_output",
}
"""What `SamplingParams`' fields are called here."""


class StreamOptions(msgspec.Struct, kw_only=True):
    """What a stream tells besides text: `include_usage` at its end, vLLM's `continuous_usage_stats` all the time."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class StructuredOutputs(msgspec.Struct, kw_only=True):
    """vLLM's constraints; exactly one of them. JSON has whitespace only if `disable_any_whitespace` is false."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool | None = None
    disable_additional_properties: bool = False
    disable_fallback: bool = False
    whitespace_pattern: str | None = None


class JsonSchema(msgspec.Struct, kw_only=True):
    """Of a `ResponseFormat`. It is always enforced, strict or not."""

    schema_: dict[str, Any] | bool | None = msgspec.field(default=None, name="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, kw_only=True):
    """What the output has to be: text, a JSON object, JSON under a schema, or SGLang's and vLLM's structural tag."""

    type: Literal["text", "json_object", "json_schema", "structural_tag"]
    json_schema: JsonSchema | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None
    at_least_one: bool = False
    stop_after_first: bool = False
    format: dict[str, Any] | None = None


class SamplingFields(msgspec.Struct, kw_only=True):
    """How to sample, what holds the output, and how it is to be sent."""

    model: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] = 1
    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    stop_regex: str | list[str] | None = None
    include_stop_str_in_output: bool | None = None
    no_stop_trim: bool | None = None
    ignore_eos: bool = False
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_new_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    prompt_logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    truncate_prompt_tokens: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    return_token_ids: bool | None = None
    use_beam_search: bool = False
    length_penalty: float = 1.0

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_decoding_backend: str | None = None
    guided_whitespace_pattern: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    json_schema: str | dict[str, Any] | None = None

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: Priority = 0
    cache_salt: Salt | None = None
    extra_key: Salt | None = None
    request_id: str | None = None
    rid: str | list[str] | None = None
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def salt(self) -> str | None:
        """What keeps its cached prefixes apart."""
        return self.cache_salt or self.extra_key


def check_fields(body: SamplingFields) -> None:
    """What no single field says.

    Raises:
        ApiError: 400.
    """
    if body.use_beam_search:
        raise bad_request("beam search is not supported; use n for several outputs", param="use_beam_search")
    if body.allowed_token_ids == []:
        raise bad_request("allowed_token_ids must not be empty", param="allowed_token_ids")
    if body.stream_options is not None and not body.stream:
        raise bad_request("stream_options needs stream=true", param="stream_options")
    if body.prompt_logprobs is not None and body.stream:
        raise bad_request("prompt_logprobs cannot be streamed", param="prompt_logprobs")
    if body.request_id is not None and _ID.fullmatch(body.request_id) is None:
        raise bad_request("request_id: at most 128 letters, digits and any of ._:-", param="request_id")


def params_of(
    call: Call,
    body: SamplingFields,
    max_tokens: int | None,
    held: dict[str, Any],
    names: dict[str, str] = NAMES,
    stop: tuple[str, ...] = (),
    stop_token_ids: tuple[int, ...] = (),
) -> SamplingParams:
    """Sampling parameters of a body.

    Args:
        call: whose limits count.
        body: the fields.
        max_tokens: most tokens; ``None`` where another one decides.
        held: the constraint.
        names: what the client calls them.
        stop: strings that end outputs besides its own.
        stop_token_ids: tokens that do.

    Raises:
        ApiError: 400.
    """
    values: dict[str, Any] = {
        "n": body.n,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k or None,
        "min_p": body.min_p,
        "frequency_penalty": body.frequency_penalty,
        "presence_penalty": body.presence_penalty,
        "repetition_penalty": body.repetition_penalty,
        "logit_bias": body.logit_bias,
        "seed": body.seed,
        "stop": _joined(body.stop, stop),
        "stop_token_ids": _joined(body.stop_token_ids, stop_token_ids),
        "stop_regex": body.stop_regex,
        "no_stop_trim": body.include_stop_str_in_output or body.no_stop_trim,
        "ignore_eos": body.ignore_eos,
        "min_new_tokens": body.min_tokens if body.min_tokens is not None else body.min_new_tokens,
        "skip_special_tokens": body.skip_special_tokens,
        "bad_words": body.bad_words,
        "allowed_token_ids": body.allowed_token_ids,
        "max_new_tokens": max_tokens,
    }
    return make_params(values | held, call.server.config.limits, call.server.info.vocab_size, names)


def _joined(own: Any, more: tuple[Any, ...]) -> Any:
    if not more:
        return own or None
    return (*([own] if isinstance(own, str) else own or ()), *more)


def held_of(call: Call, body: SamplingFields) -> dict[str, Any]:
    """The constraint of a body as an argument of `SamplingParams`.

    Raises:
        ApiError: 400: there are several, or it is malformed or over a limit.
    """
    held: dict[str, Any] = dict(constraint_params(_constraints(body), call.server.config.limits))
    if body.structured_outputs is not None and body.structured_outputs.disable_any_whitespace is False:
        held["whitespace"] = "any"
    return held


def _constraints(body: SamplingFields) -> list[Constraint]:
    values: tuple[tuple[str, Any, Any], ...] = (
        ("guided_json", "json_schema", body.guided_json),
        ("guided_regex", "regex", body.guided_regex),
        ("guided_choice", "choice", body.guided_choice),
        ("guided_grammar", "ebnf", body.guided_grammar),
        ("regex", "regex", body.regex),
        ("ebnf", "ebnf", body.ebnf),
        ("json_schema", "json_schema", body.json_schema),
    )
    found = [Constraint(field, kind, value) for field, kind, value in values if value is not None]
    if body.structured_outputs is not None:
        found += _structured(body.structured_outputs)
    if body.response_format is not None:
        found += _formatted(body.response_format)
    return found


def _structured(given: StructuredOutputs) -> list[Constraint]:
    if given.whitespace_pattern is not None:
        raise bad_request(
            "structured_outputs.whitespace_pattern is not supported: JSON has no whitespace here",
            param="structured_outputs.whitespace_pattern",
        )
    values: tuple[tuple[str, Any, Any], ...] = (
        ("json", "json_schema", given.json),
        ("regex", "regex", given.regex),
        ("choice", "choice", given.choice),
        ("grammar", "ebnf", given.grammar),
        ("json_object", "json_schema", ANY_OBJECT if given.json_object else None),
        ("structural_tag", "structural_tag", given.structural_tag),
    )
    found = [
        Constraint(f"structured_outputs.{name}", kind, value)
        for name, kind, value in values
        if value is not None
    ]
    if not found:
        raise bad_request("structured_outputs must have one constraint in it", param="structured_outputs")
    return found


def _formatted(given: ResponseFormat) -> list[Constraint]:
    if given.type == "text":
        return []
    if given.type == "json_object":
        return [Constraint("response_format", "json_schema", ANY_OBJECT)]
    if given.type == "json_schema":
        if given.json_schema is None or given.json_schema.schema_ is None:
            raise bad_request(
                "response_format of type 'json_schema' must have json_schema.schema",
                param="response_format.json_schema",
            )
        return [Constraint("response_format.json_schema.schema", "json_schema", given.json_schema.schema_)]
    tag: dict[str, Any] = {"structures": given.structures or [], "triggers": given.triggers or []}
    if given.format is not None:
        tag["format"] = given.format
    tag |= {"at_least_one": given.at_least_one, "stop_after_first": given.stop_after_first}
    return [Constraint("response_format", "structural_tag", tag)]
