"""The body of ``/generate``."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=256)]


class SamplingFields(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``sampling_params``: SGLang's names, and those of `SamplingParams` that SGLang has not.

    ``max_new_tokens: null`` is what is left of the context. `spaces_between_special_tokens`, `custom_params`,
    `stream_interval` and `beam_width` (1) change nothing.
    """

    max_new_tokens: Number | None = 128
    min_new_tokens: Number | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    stop_regex: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Number | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    n: Number | None = None
    json_schema: str | dict[str, Any] | bool | None = None
    regex: str | None = None
    ebnf: str | None = None
    structural_tag: str | dict[str, Any] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    no_stop_trim: bool | None = None
    logit_bias: dict[str, float] | None = None
    sampling_seed: Number | None = None
    seed: Number | None = None
    bad_words: str | list[str] | None = None
    property_order: str | None = None
    whitespace: str | None = None
    jump_forward: bool | None = None
    spaces_between_special_tokens: bool | None = None
    custom_params: Any = None
    stream_interval: int | None = None
    beam_width: int | None = None


class GenerateBody(msgspec.Struct, kw_only=True):
    """The body of ``/generate``: one prompt, or a list of them, as text or as token ids.

    What may differ from prompt to prompt is one value, or a list with one for each.

    Args:
        text: the prompt; or `input_ids`.
        input_ids: token ids.
        sampling_params: see `SamplingFields`.
        rid: names the request, for ``/abort_request``.
        return_logprob: report log-probabilities; the next three as in SGLang.
        return_text_in_logprobs: with the tokens' texts.
        stream: answer with events, each with the whole output so far.
        incremental_streaming_output: events have only what is new.
        priority: larger ones first.
        cache_salt: keeps cached prefixes apart within the tenant; so does `extra_key`.
        deadline: seconds after which the request ends with an error. Not SGLang's, as what follows.
        choices: texts or token ids, any of which could follow the one prompt. Nothing is generated;
            ``meta_info["choice_logprobs"]`` has the log-probabilities of their tokens.
        resume_ids: output tokens that an earlier, otherwise equal request has given before it broke off. The answer has
            only what comes after them. ``prompt_tokens`` and ``completion_tokens`` count as if nothing had happened.
        resume_logprobs: how many log-probabilities of the output are known from that request; by default one for each
            of `resume_ids`.
    """

    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    sampling_params: SamplingFields | list[SamplingFields | None] | None = None
    rid: Name | list[Name] | None = None
    return_logprob: bool | list[bool | None] | None = None
    logprob_start_len: Number | list[Number | None] | None = None
    top_logprobs_num: Number | list[Number | None] | None = None
    token_ids_logprob: list[int | list[int] | None] | None = None
    return_text_in_logprobs: bool = False
    stream: bool = False
    incremental_streaming_output: bool = False
    priority: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)] | None = None
    cache_salt: Name | None = None
    extra_key: Name | None = None
    deadline: Annotated[float, msgspec.Meta(gt=0)] | None = None
    choices: list[str | list[int]] | UnsetType = UNSET
    resume_ids: list[int | list[int]] | None = None
    resume_logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    image_data: Any = None
    video_data: Any = None
    audio_data: Any = None
    input_embeds: Any = None
    lora_path: Any = None
    session_params: Any = None
    custom_logit_processor: Any = None
    return_hidden_states: bool | list[bool] | None = None


class Generated(msgspec.Struct, kw_only=True):
    """An output: what there is of it so far, or in all.

    Args:
        text: its text.
        output_ids: its tokens.
        meta_info: id, token counts, why it ended, log-probabilities.
        index: which of several outputs it is.
    """

    text: str
    output_ids: list[int]
    meta_info: dict[str, Any]
    index: int | UnsetType = UNSET


GENERATED = Generated | list[Generated]
"""What ``/generate`` answers: one output, or a list of them if there are several prompts or ``n`` is not 1."""

REFUSED = {
    "image_data": "the model takes no images",
    "video_data": "the model takes no videos",
    "audio_data": "the model takes no audio",
    "input_embeds": "prompts are text or input_ids",
    "lora_path": "there are no adapters",
    "session_params": "there are no sessions; prefixes are cached without them",
    "custom_logit_processor": "the server runs no code of clients",
    "return_hidden_states": "hidden states are not given out; /v1/embeddings has their mean",
}
"""Fields of SGLang's that must not be ignored, and why they are refused."""


class EncodeBody(msgspec.Struct, kw_only=True):
    """The body of ``/encode``: one text or list of token ids, or several. `sampling_params` has no effect."""

    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    rid: str | list[str] | None = None
    dimensions: int | None = None
    sampling_params: Any = None
    image_data: Any = None
