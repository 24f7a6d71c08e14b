"""What ``/v1/chat/completions`` gets and gives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.openai.chunks import Usage
from sgl_like.runtime.server.openai.fields import SamplingFields, check_fields
from sgl_like.runtime.server.openai.logprobs import ChatLogprobs
from sgl_like.runtime.server.openai.messages import Message, Tool, ToolChoices

RESERVED = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "limits",
        "messages", "padding", "return_dict", "return_tensors", "self", "tokenize", "tokenizer", "tools", "truncation",
    }
)  # fmt: skip
"""Names that ``chat_template_kwargs`` must not have: they are the server's own."""


class ChatRequest(SamplingFields, kw_only=True):
    """The body of ``POST /v1/chat/completions``.

    Without `max_tokens` or `max_completion_tokens` an answer may take what is left of the context. `separate_reasoning`
    (SGLang's) tells what the model thinks from what it says, if its chat template has a form for that; with
    `include_reasoning` false (vLLM's) it is left out.
    """

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0)] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoices = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    reasoning_effort: str | None = None
    separate_reasoning: bool = True
    stream_reasoning: bool = True
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    echo: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[Any] | None = None
    modalities: list[str] | None = None
    audio: Any = None
    prediction: Any = None
    verbosity: str | None = None
    web_search_options: Any = None

    @property
    def budget(self) -> int | None:
        """Most tokens of an answer, if the client says so."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def variables(self) -> dict[str, Any]:
        """Of the chat template."""
        given = dict(self.chat_template_kwargs or {})
        if self.reasoning_effort is not None:
            given.setdefault("reasoning_effort", self.reasoning_effort)
            if self.reasoning_effort == "none":
                given.setdefault("enable_thinking", False)
        return given


def check_chat(body: ChatRequest) -> None:
    """What no single field says.

    Raises:
        ApiError: 400.
    """
    check_fields(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("top_logprobs needs logprobs=true", param="top_logprobs")
    if body.chat_template is not None:
        raise bad_request("chat_template: templates of clients are not taken", param="chat_template")
    if body.functions is not None or body.function_call is not None:
        raise bad_request("functions and function_call are no more; use tools and tool_choice", "functions")
    if body.audio is not None or any(each != "text" for each in body.modalities or ()):
        raise bad_request("the model here writes text only", param="modalities")
    if body.web_search_options is not None:
        raise bad_request("there is no web search here", param="web_search_options")
    for name in body.chat_template_kwargs or ():
        if name in RESERVED or not name.isidentifier():
            raise bad_request(
                f"chat_template_kwargs: the name {name[:64]!r} is reserved", param="chat_template_kwargs"
            )


class CalledFunction(msgspec.Struct, kw_only=True):
    """Which function to call, and with what: JSON as text."""

    name: str
    arguments: str


class AnswerCall(msgspec.Struct, kw_only=True):
    """A call that the model wants."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AnswerMessage(msgspec.Struct, kw_only=True):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str | None = None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnswerCall] | UnsetType = UNSET


class ChatChoice(msgspec.Struct, kw_only=True):
    """An answer. `stop_reason`: the stop string or token that ended it."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: str
    stop_reason: int | str | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatResponse(msgspec.Struct, kw_only=True):
    """All answers."""

    id: str
    object: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[str, Any] | None] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
