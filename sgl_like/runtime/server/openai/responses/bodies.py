"""The body of ``POST /v1/responses``, and of what it may hold.

https://platform.openai.com/docs/api-reference/responses. Fields that are about OpenAI's own business (`service_tier`,
`safety_identifier`, `prompt_cache_key`, ...) are taken and have no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=64)],
        Annotated[str, msgspec.Meta(max_length=512)],
    ],
    msgspec.Meta(max_length=16),
]


class TextFormat(msgspec.Struct, tag="text", tag_field="type", kw_only=True):
    """Free text."""


class JsonObjectFormat(msgspec.Struct, tag="json_object", tag_field="type", kw_only=True):
    """Any JSON object."""


class JsonSchemaFormat(msgspec.Struct, tag="json_schema", tag_field="type", kw_only=True):
    """JSON under a schema, which is always kept to, whatever `strict` says."""

    schema: dict[str, Any]
    name: str = "response"
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, kw_only=True):
    """What the text of the answer is; `verbosity` has no effect."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Tool(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A function that the model may call. OpenAI's own tools have another `type` and do not exist here."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which function is called (``"function"``), or which may be (``"allowed_tools"``)."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None


class ResponsesRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /v1/responses``."""

    model: str | None = None
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    text: TextConfig | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    include: list[str] | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    max_tool_calls: int | None = None
    reasoning: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    service_tier: str | None = None
    stream_options: dict[str, Any] | None = None
    moderation: Any = None


class Part(msgspec.Struct, kw_only=True):
    """A part of a message's content, or of what a function returned."""

    type: str
    text: str | None = None
    refusal: str | None = None


class MessageItem(msgspec.Struct, kw_only=True):
    """A message of the conversation so far; its `type` may be left out."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None


class FunctionCallItem(msgspec.Struct, kw_only=True):
    """A call that an earlier answer had in it."""

    call_id: str
    name: Name
    arguments: str
    type: Literal["function_call"]
    id: str | None = None
    status: str | None = None


class FunctionCallOutputItem(msgspec.Struct, kw_only=True):
    """What came of a call."""

    call_id: str
    output: str | list[Part]
    type: Literal["function_call_output"]
    id: str | None = None
    status: str | None = None


class ReasoningItem(msgspec.Struct, kw_only=True):
    """Reasoning of an earlier answer; the model does not see it again."""

    type: Literal["reasoning"]
    id: str | None = None


Item = MessageItem | FunctionCallItem | FunctionCallOutputItem | ReasoningItem


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseAnswer(msgspec.Struct, kw_only=True):
    """A response: what was asked for, and what came of it.

    `status` is ``"incomplete"`` when `max_output_tokens` were not enough, and ``"cancelled"`` when it was cancelled or
    the server stopped; `output` has what there was until then.
    """

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["in_progress", "completed", "incomplete", "cancelled", "failed"]
    background: bool
    completed_at: int | None
    error: dict[str, Any] | None
    incomplete_details: dict[str, Any] | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    reasoning: dict[str, Any]
    service_tier: str
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: str
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


class DeletedAnswer(msgspec.Struct, kw_only=True):
    """A response that is no longer stored."""

    id: str
    object: Literal["response"]
    deleted: bool


class ItemsAnswer(msgspec.Struct, kw_only=True):
    """Items of a conversation."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokensAnswer(msgspec.Struct, kw_only=True):
    """The size of a response's input."""

    object: Literal["response.input_tokens"]
    input_tokens: int
