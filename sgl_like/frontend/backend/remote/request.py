"""A call of the DSL as the body of a request, or an error that says what cannot be done and what could.

Everything is decided here, before anything is sent: nothing that a program asks for is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sgl_like.errors import RequestError, SamplingParamsError
from sgl_like.frontend.backend.remote.codec import Chat, Prompt
from sgl_like.frontend.backend.remote.dialect import Dialect, Mode, merged
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS, LogprobParams
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = ["Request", "mode_for", "request_for"]

_INSTEAD = (
    {"regex", "json_schema", "ebnf", "structural_tag"},
    {"top_p", "top_k", "min_p"},
    {"frequency_penalty", "presence_penalty", "repetition_penalty"},
    {"stop", "stop_regex", "stop_token_ids"},
)
"""Parameters that can stand in for each other."""


@dataclass(frozen=True)
class Request:
    """What to ask, and how."""

    dialect: Dialect
    mode: Mode
    model: str
    prompt: Prompt
    params: SamplingParams
    logprobs: LogprobParams | None
    extra: Mapping[str, Any]  # merged into the body as it is
    choices: tuple[str, ...] = ()  # what the output is held to
    known: tuple[int, ...] = ()  # tokens of the output that have come before it broke off
    scored: int = 0  # how many of them have come with their log-probabilities

    def body(self, stream: bool) -> dict[str, Any]:
        """The JSON to send."""
        body = self.mode.wire.body(self.model, self.prompt, stream)
        if isinstance(self.prompt, Chat) and self.prompt.begun:
            assert self.mode.prefill is not None, "`request_for` checks it"
            merged(body, self.mode.prefill)
        for each in fields(SamplingParams):
            spell = self.mode.params.get(each.name)
            if spell is not None:
                value = getattr(self.params, each.name)
                merged(body, spell.fields(value, value == each.default))
        if self.logprobs is not None:
            assert self.mode.logprobs is not None, "`request_for` checks it"
            merged(body, self.mode.logprobs(self.logprobs))
        if self.choices:
            assert self.mode.choice is not None, "who asks for a choice looks whether it can be had"
            merged(body, self.mode.choice.fields(self.choices, False))
        if self.known:
            assert self.mode.resume is not None, "who asks for the rest looks whether it can be had"
            merged(body, self.mode.resume(self.known, self.scored))
        return merged(body, self.extra)


def mode_for(dialect: Dialect, prompt: Prompt) -> Mode:
    """How to ask `dialect` about `prompt`.

    Raises:
        RequestError: it takes no prompts of that kind, or cannot continue a message.
    """
    if not isinstance(prompt, Chat):
        if dialect.text is None:
            raise RequestError(f"{dialect.title} takes messages only; put the text into sgl.user(...)")
        return dialect.text
    if dialect.chat is None:
        raise RequestError(
            f"{dialect.title} takes plain text only; leave the roles out, or name a chat template"
        )
    roles = dialect.chat.roles
    other = next((turn.role for turn in prompt.turns if roles is not None and turn.role not in roles), None)
    if other is not None:
        raise RequestError(
            f"{dialect.title} takes no {other!r} messages of this form; put the text into sgl.user(...)"
        )
    if prompt.begun and dialect.chat.prefill is None:
        raise RequestError(
            f"{dialect.title} cannot continue a message: {prompt.begun[-40:]!r} stands before the gen in its"
            " message. Begin the message with the gen, or let @sgl.function(num_api_spec_tokens=...) ask for the"
            " whole message at once"
        )
    return dialect.chat


def request_for(
    dialect: Dialect, model: str, prompt: Prompt, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> Request:
    """Check the parameters `given` (of a gen, and of `LOGPROB_OPTIONS`) against what the engine knows.

    Raises:
        RequestError: see `mode_for`.
        SamplingParamsError: a value is out of range, or a parameter is not known there.
    """
    mode = mode_for(dialect, prompt)
    params = SamplingParams.from_dict(
        {key: value for key, value in given.items() if key not in LOGPROB_OPTIONS}
    )
    logprobs = LogprobParams.from_options(**{key: given[key] for key in given.keys() & LOGPROB_OPTIONS})
    for each in fields(SamplingParams):
        value = getattr(params, each.name)
        if each.name not in mode.params and value != each.default:
            raise SamplingParamsError(_unknown(dialect, mode, each.name, value))
    if logprobs is not None:
        if mode.logprobs is None:
            raise SamplingParamsError(f"return_logprob: {dialect.title} gives no log-probabilities here")
        if (logprobs.start is not None or logprobs.token_ids) and not mode.prompt_logprobs:
            name = "token_ids_logprob" if logprobs.token_ids else "logprob_start_len"
            raise SamplingParamsError(
                f"{name}: {dialect.title} gives log-probabilities of the output only; SGLang's /generate has them"
            )
    return Request(dialect, mode, model, prompt, params, logprobs, extra)


def _unknown(dialect: Dialect, mode: Mode, name: str, value: Any) -> str:
    from sgl_like.frontend.backend.remote.engines.table import DIALECTS

    kind = "messages" if mode.wire.chat else "plain text"
    alike = next((group for group in _INSTEAD if name in group), set())
    instead = sorted(alike & mode.params.keys() - {name})
    others = [
        other.title
        for other in DIALECTS.values()
        if other.name != dialect.name
        and any(name in m.params for m in (other.chat, other.text) if m is not None)
    ]
    text = f"{name}={_short(value)} cannot be asked of {dialect.title} (for {kind})"
    if instead:
        text += f"; it knows {', '.join(instead)}"
    return text + (
        f"; {name} is known to {', '.join(others)} and sgl.Runtime" if others else f"; sgl.Runtime has {name}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
