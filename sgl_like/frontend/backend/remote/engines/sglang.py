"""SGLang's native ``/generate``, which our own server speaks as well.

Fields: sgl-project/sglang, python/sglang/srt/managers/io_struct.py (GenerateReqInput), sampling/sampling_params.py, and
docs/basic_usage/sampling_params.md. The text in the events of a stream is all so far, or with the server's
``incremental_streaming_output`` only what is new (b#28). Which of the two is read off the events themselves:
``completion_tokens`` always counts from the beginning, so ``output_ids`` that are fewer are new ones only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from sgl_like.frontend.backend.remote.codec import PlainText, Prompt, Tokens
from sgl_like.frontend.backend.remote.dialect import SAME, Dialect, Mode, Spell, choice_regex
from sgl_like.frontend.backend.remote.engines.common import (
    CONTINUOUS,
    PERMITTING,
    SAMPLERS,
    SCHEMA,
    bias_object,
    chat_logprobs,
    tag_object,
)
from sgl_like.frontend.backend.remote.openai_wire import OpenAIChat
from sgl_like.frontend.backend.remote.wire import Answer, Piece, Wire
from sgl_like.runtime.logprobs import LogprobParams, PlaceLogprobs, TokenLogprob
from sgl_like.runtime.protocol import FinishReason, Usage

__all__ = ["SGLANG", "SGL_LIKE", "SglLikeGenerate", "SglangGenerate", "token_logprobs"]


class SglangGenerate(Wire):
    """``/generate``, with text or token ids."""

    def path(self, stream: bool) -> str:
        """See `Wire.path`."""
        return "/generate"

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        given: dict[str, Any]
        if isinstance(prompt, Tokens):
            given = {"input_ids": list(prompt.ids)}
        else:
            assert isinstance(prompt, PlainText)
            given = {"text": prompt.text}
        return {**given, "sampling_params": {}, "stream": stream}

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _SglangAnswer(bool(body.get("stream")))


class SglLikeGenerate(SglangGenerate):
    """Our own server's ``/generate``: what is streamed is only what is new."""

    def body(self, model: str, prompt: Prompt, stream: bool) -> dict[str, Any]:
        """See `Wire.body`."""
        body = super().body(model, prompt, stream)
        return {**body, "incremental_streaming_output": True} if stream else body

    def answer(self, body: Mapping[str, Any]) -> Answer:
        """See `Wire.answer`."""
        return _SglLikeAnswer()


def sglang_logprobs(asked: LogprobParams) -> dict[str, Any]:
    """The fields that ask for log-probabilities."""
    fields: dict[str, Any] = {
        "return_logprob": True,
        "logprob_start_len": -1 if asked.start is None else asked.start,
        "top_logprobs_num": asked.top,
        "return_text_in_logprobs": asked.text,
    }
    return {**fields, "token_ids_logprob": list(asked.token_ids)} if asked.token_ids else fields


class _SglangAnswer(Answer):
    def __init__(self, stream: bool) -> None:
        self._stream = stream
        self._text = ""
        self._tokens = 0  # whose ids were read
        self._places = 0  # whose log-probabilities were read
        self._prompt_read = False

    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        meta = event.get("meta_info") or {}
        ids, text = tuple(event.get("output_ids") or ()), event.get("text") or ""
        counted = meta.get("completion_tokens") or 0
        whole = self._is_whole(ids, text, counted)
        new = text[len(self._text) :] if whole else text
        new_ids = ids[self._tokens :] if whole else ids
        self._text += new
        self._tokens += len(new_ids)
        return Piece(
            text=new,
            token_ids=new_ids,
            finish=_finish(meta.get("finish_reason")),
            usage=Usage(meta.get("prompt_tokens") or 0, counted, meta.get("cached_tokens") or 0),
            prompt_logprobs=self._prompt_places(meta),
            output_logprobs=self._output_places(meta, whole),
        )

    def _is_whole(self, ids: Sequence[int], text: str, counted: int) -> bool:
        """Whether an event says everything so far, not only what is new."""
        if not self._stream or not (self._text or self._tokens):
            return True
        if ids:
            return len(ids) >= counted
        return len(text) >= len(self._text) and text.startswith(self._text)

    def _prompt_places(self, meta: Mapping[str, Any]) -> tuple[PlaceLogprobs, ...]:
        places = token_logprobs(meta, "input")
        if self._prompt_read or not places:
            return ()
        self._prompt_read = True
        return places

    def _output_places(self, meta: Mapping[str, Any], whole: bool) -> tuple[PlaceLogprobs, ...]:
        places = token_logprobs(meta, "output")
        new = places[self._places :] if whole else places
        self._places += len(new)
        return new


class _SglLikeAnswer(Answer):
    def read(self, event: Mapping[str, Any]) -> Piece:
        """See `Answer.read`."""
        meta = event["meta_info"]
        usage = Usage(
            **{name: meta[name] for name in _USAGE},
        )
        return Piece(
            text=event["text"],
            token_ids=tuple(event["output_ids"]),
            finish=_finish(meta["finish_reason"]),
            usage=usage,
            prompt_logprobs=token_logprobs(meta, "input"),
            output_logprobs=token_logprobs(meta, "output"),
            forced=tuple(meta.get("forced_positions") or ()),
        )


_USAGE = tuple(field.name for field in fields(Usage))


def _finish(found: Any) -> FinishReason | None:
    if not isinstance(found, Mapping):
        return None
    kind = found.get("type")
    if kind in ("stop", "length"):
        return FinishReason(kind, found.get("matched"))
    return FinishReason("error", message=str(found.get("message") or f"the server ended the output: {kind}"))


def token_logprobs(meta: Mapping[str, Any], side: str) -> tuple[PlaceLogprobs, ...]:
    """Log-probabilities of the ``"input"`` or the ``"output"`` in SGLang's ``meta_info``."""
    tokens = meta.get(f"{side}_token_logprobs") or ()
    tops = meta.get(f"{side}_top_logprobs") or [None] * len(tokens)
    asked = meta.get(f"{side}_token_ids_logprobs") or [None] * len(tokens)
    return tuple(
        PlaceLogprobs(_triple(token), tuple(map(_triple, top or ())), tuple(map(_triple, ids or ())))
        for token, top, ids in zip(tokens, tops, asked, strict=False)
    )


def _triple(found: Sequence[Any]) -> TokenLogprob:
    return found[0], found[1], found[2] if len(found) > 2 else None


_SGLANG = {**SAMPLERS, "stop_regex": Spell("stop_regex"), "no_stop_trim": Spell("no_stop_trim")}
SGLANG = Dialect(
    "sglang",
    "SGLang",
    chat=Mode(
        OpenAIChat(CONTINUOUS),
        {
            **_SGLANG,
            **SCHEMA,
            "regex": Spell("regex"),
            "ebnf": Spell("ebnf"),
            "structural_tag": Spell("response_format", write=tag_object),
        },
        logprobs=chat_logprobs,
        prefill={"continue_final_message": True},
        choice=Spell("regex", write=choice_regex),
        counts=True,
    ),
    text=Mode(
        SglangGenerate(),
        {
            **PERMITTING,
            "max_new_tokens": Spell("sampling_params.max_new_tokens", SAME),
            "temperature": Spell("sampling_params.temperature", SAME),
            **{
                name: Spell(f"sampling_params.{name}", SAME)
                for name in ("top_p", "top_k", "min_p", "repetition_penalty")
            },
            **{
                name: Spell(f"sampling_params.{name}")
                for name in (
                    "frequency_penalty",
                    "presence_penalty",
                    "min_new_tokens",
                    "stop",
                    "stop_regex",
                    "stop_token_ids",
                    "ignore_eos",
                    "skip_special_tokens",
                    "no_stop_trim",
                    "regex",
                    "json_schema",
                    "ebnf",
                )
            },
            "logit_bias": Spell("sampling_params.logit_bias", write=bias_object),
            "seed": Spell("sampling_params.sampling_seed"),
            "structural_tag": Spell(
                "sampling_params.structural_tag", write=lambda text: json.dumps(tag_object(text))
            ),
        },
        logprobs=sglang_logprobs,
        prompt_logprobs=True,
        choice=Spell("sampling_params.regex", write=choice_regex),
        scoring="sglang",
        counts=True,
    ),
    owners=frozenset({"sglang"}),
)

assert SGLANG.text is not None and SGLANG.chat is not None
SGL_LIKE = replace(
    SGLANG,
    name="sgl_like",
    title="sgl_like's server",
    chat=replace(SGLANG.chat, images=False),
    text=replace(
        SGLANG.text,
        wire=SglLikeGenerate(),
        params={
            **SGLANG.text.params,
            "seed": Spell("sampling_params.seed"),
            **{
                name: Spell(f"sampling_params.{name}")
                for name in ("bad_words", "property_order", "whitespace", "jump_forward")
            },
        },
        scoring="sgl_like",
        resume=lambda known, scored: {"resume_ids": list(known), "resume_logprobs": scored},
    ),
    owners=frozenset({"sgl_like"}),
)
"""Our own server: nothing is lost of what a program can ask of an engine in its own process."""
