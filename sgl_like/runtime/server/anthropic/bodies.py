"""Bodies of Anthropic's API, field by field as its clients send them.

https://docs.anthropic.com/en/api/messages. Fields that are about Anthropic's own business (`service_tier`, `metadata`,
``cache_control``, ...) are taken and have no effect: here every prefix is cached.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class TextBlock(msgspec.Struct, tag="text", kw_only=True):
    """Text."""

    text: str


class ToolUseBlock(msgspec.Struct, tag="tool_use", kw_only=True):
    """A call of a tool that an earlier answer had in it."""

    id: str
    name: Name
    input: dict[str, Any] = {}


class ToolResultBlock(msgspec.Struct, tag="tool_result", kw_only=True):
    """What came of a call."""

    tool_use_id: str
    content: str | list[ResultPart] = ""
    is_error: bool | None = None


class ThinkingBlock(msgspec.Struct, tag="thinking", kw_only=True):
    """Reasoning of an earlier answer; the model does not see it again."""

    thinking: str = ""
    signature: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking", kw_only=True):
    """The same, unreadable."""

    data: str = ""


class ImageBlock(msgspec.Struct, tag="image", kw_only=True):
    """A picture; no model here sees any, so it is refused."""

    source: dict[str, Any] = {}


class DocumentBlock(msgspec.Struct, tag="document", kw_only=True):
    """A file; refused."""

    source: dict[str, Any] = {}


ResultPart = TextBlock | ImageBlock | DocumentBlock
Block = (
    TextBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ImageBlock
    | DocumentBlock
)


class InputMessage(msgspec.Struct, kw_only=True):
    """A turn of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call. Anthropic's own tools have another `type` and do not exist here."""

    name: Name
    input_schema: dict[str, Any] | None = None
    description: str = ""
    type: str | None = None


class ToolChoiceAuto(msgspec.Struct, tag="auto", kw_only=True):
    """Calls or text, as the model likes."""

    disable_parallel_tool_use: bool = False


class ToolChoiceAny(msgspec.Struct, tag="any", kw_only=True):
    """At least one call."""

    disable_parallel_tool_use: bool = False


class ToolChoiceTool(msgspec.Struct, tag="tool", kw_only=True):
    """A call of this tool."""

    name: Name
    disable_parallel_tool_use: bool = False


class ToolChoiceNone(msgspec.Struct, tag="none", kw_only=True):
    """No calls."""


ToolChoice = ToolChoiceAuto | ToolChoiceAny | ToolChoiceTool | ToolChoiceNone


class JsonFormat(msgspec.Struct, tag="json_schema", tag_field="type", kw_only=True):
    """The answer is JSON under a schema."""

    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, kw_only=True):
    """How the answer has to be; ``effort`` has no effect."""

    format: JsonFormat | None = None


class Thinking(msgspec.Struct, kw_only=True):
    """Whether to reason first, which models here do not do on request."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None


class Conversation(msgspec.Struct, kw_only=True):
    """What ``/v1/messages`` and ``/v1/messages/count_tokens`` have in common."""

    model: str
    messages: Annotated[list[InputMessage], msgspec.Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None


class CountTokensRequest(Conversation, kw_only=True):
    """The body of ``POST /v1/messages/count_tokens``."""


class MessagesRequest(Conversation, kw_only=True):
    """The body of ``POST /v1/messages``."""

    max_tokens: Annotated[int, msgspec.Meta(ge=0)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] | None = None
    metadata: Any = None
    service_tier: Any = None
    container: Any = None
    inference_geo: Any = None
    speed: Any = None
    diagnostics: Any = None


class MessageUsage(msgspec.Struct, kw_only=True):
    """Tokens; those from the cache are not among `input_tokens`."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class MessageAnswer(msgspec.Struct, kw_only=True):
    """The answer of ``POST /v1/messages``."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ToolUseBlock]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "model_context_window_exceeded"
    ]
    stop_sequence: str | None
    usage: MessageUsage


class TokensAnswer(msgspec.Struct, kw_only=True):
    """The answer of ``POST /v1/messages/count_tokens``."""

    input_tokens: int
