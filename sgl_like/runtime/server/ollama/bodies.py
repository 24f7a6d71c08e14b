"""Bodies of Ollama's API, field by field as its clients send them.

https://github.com/ollama/ollama/blob/main/docs/api.md. Options that are about how Ollama loads and computes a model
(`num_ctx`, `num_gpu`, `num_thread`, `keep_alive`, ...) are taken and have no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

TopLogprobs = Annotated[int, msgspec.Meta(ge=0, le=20)]


class Options(msgspec.Struct, kw_only=True):
    """How to sample. Where Ollama has a default of its own, it is the default here too, but penalties are off.

    `num_predict` below 0 is all that the context has room for. `repeat_last_n` is 0 (no penalty) or anything else: the
    penalty then looks at the whole sequence.
    """

    num_predict: int = -1
    temperature: Annotated[float, msgspec.Meta(ge=0.0)] = 0.8
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 40
    top_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.9
    min_p: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: Annotated[float, msgspec.Meta(gt=0.0, le=2.0)] = 1.0
    repeat_last_n: Annotated[int, msgspec.Meta(ge=-1)] = 64
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2.0, le=2.0)] = 0.0
    typical_p: float | None = None
    tfs_z: float | None = None
    mirostat: int | None = None
    num_ctx: int | None = None


class Function(msgspec.Struct, kw_only=True):
    """Which function is called, and with what."""

    name: str
    arguments: dict[str, Any] = {}


class ToolCall(msgspec.Struct, kw_only=True):
    """A call that an earlier answer had in it."""

    function: Function
    id: str | None = None


class Message(msgspec.Struct, kw_only=True):
    """A message of a chat. `thinking` is not shown to the model again."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    thinking: str | None = None


class ToolFunction(msgspec.Struct, kw_only=True):
    """What a function is called, does and takes."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call."""

    function: ToolFunction
    type: Literal["function"] = "function"


class Common(msgspec.Struct, kw_only=True):
    """What ``/api/chat`` and ``/api/generate`` have in common."""

    model: str
    stream: bool | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    keep_alive: Any = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    truncate: bool | None = None
    shift: bool | None = None


class ChatRequest(Common, kw_only=True):
    """The body of ``POST /api/chat``."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None


class GenerateRequest(Common, kw_only=True):
    """The body of ``POST /api/generate``. `context` are ids of an earlier answer, which the prompt goes on from."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class ShowRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/show``."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


class EmbedRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/embed``."""

    model: str
    input: str | list[str]
    truncate: bool | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /api/embeddings``, which has one prompt."""

    model: str
    prompt: str = ""
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class Line(msgspec.Struct, kw_only=True):
    """What every line of a stream, and every whole answer, has; counts and times (in ns) only the last or whole one."""

    model: str
    created_at: str
    done: bool
    done_reason: str | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[dict[str, Any]] | None = None


class CalledMessage(msgspec.Struct, kw_only=True):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    tool_calls: list[ToolCall] | None = None


class ChatAnswer(Line, kw_only=True):
    """The answer of ``POST /api/chat``."""

    message: CalledMessage


class GenerateAnswer(Line, kw_only=True):
    """The answer of ``POST /api/generate``; `context` are the ids of prompt and answer."""

    response: str
    context: list[int] | None = None


class EmbedAnswer(msgspec.Struct, kw_only=True):
    """The answer of ``POST /api/embed``; times are in ns."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int


class EmbeddingsAnswer(msgspec.Struct, kw_only=True):
    """The answer of ``POST /api/embeddings``."""

    embedding: list[float]
