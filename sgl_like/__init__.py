"""sgl_like: programs of language-model calls, and a runtime for them.

    import sgl_like as sgl

    @sgl.function
    def answer(s, question):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen("answer", max_tokens=64))

    print(answer("What is the capital of France?")["answer"])

Names are loaded when they are first used, so that importing this package loads neither torch nor a model.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sgl_like.errors import (
        ChatTemplateError as ChatTemplateError,
    )
    from sgl_like.errors import (
        ConfigError as ConfigError,
    )
    from sgl_like.errors import (
        ConstraintError as ConstraintError,
    )
    from sgl_like.errors import (
        ConstraintTooComplex as ConstraintTooComplex,
    )
    from sgl_like.errors import (
        DataError as DataError,
    )
    from sgl_like.errors import (
        DeadlineExceeded as DeadlineExceeded,
    )
    from sgl_like.errors import (
        EngineClosedError as EngineClosedError,
    )
    from sgl_like.errors import (
        EngineError as EngineError,
    )
    from sgl_like.errors import (
        EngineUnavailable as EngineUnavailable,
    )
    from sgl_like.errors import (
        ModelLoadError as ModelLoadError,
    )
    from sgl_like.errors import (
        OutputError as OutputError,
    )
    from sgl_like.errors import (
        ProgramError as ProgramError,
    )
    from sgl_like.errors import (
        PromptTooLongError as PromptTooLongError,
    )
    from sgl_like.errors import (
        RemoteAuthenticationError as RemoteAuthenticationError,
    )
    from sgl_like.errors import (
        RemoteConnectionError as RemoteConnectionError,
    )
    from sgl_like.errors import (
        RemoteError as RemoteError,
    )
    from sgl_like.errors import (
        RemoteRateLimitError as RemoteRateLimitError,
    )
    from sgl_like.errors import (
        RemoteRequestError as RemoteRequestError,
    )
    from sgl_like.errors import (
        RemoteTimeoutError as RemoteTimeoutError,
    )
    from sgl_like.errors import (
        ReplayError as ReplayError,
    )
    from sgl_like.errors import (
        RequestAborted as RequestAborted,
    )
    from sgl_like.errors import (
        RequestError as RequestError,
    )
    from sgl_like.errors import (
        SamplingParamsError as SamplingParamsError,
    )
    from sgl_like.errors import (
        SglError as SglError,
    )
    from sgl_like.errors import (
        ToolError as ToolError,
    )
    from sgl_like.errors import (
        TraceError as TraceError,
    )
    from sgl_like.errors import (
        UnsupportedSchemaError as UnsupportedSchemaError,
    )
    from sgl_like.errors import (
        ValidationError as ValidationError,
    )
    from sgl_like.frontend.api import (
        assistant as assistant,
    )
    from sgl_like.frontend.api import (
        assistant_begin as assistant_begin,
    )
    from sgl_like.frontend.api import (
        assistant_end as assistant_end,
    )
    from sgl_like.frontend.api import (
        gen as gen,
    )
    from sgl_like.frontend.api import (
        role as role,
    )
    from sgl_like.frontend.api import (
        select as select,
    )
    from sgl_like.frontend.api import (
        system as system,
    )
    from sgl_like.frontend.api import (
        system_begin as system_begin,
    )
    from sgl_like.frontend.api import (
        system_end as system_end,
    )
    from sgl_like.frontend.api import (
        user as user,
    )
    from sgl_like.frontend.api import (
        user_begin as user_begin,
    )
    from sgl_like.frontend.api import (
        user_end as user_end,
    )
    from sgl_like.frontend.backend.cache import cached as cached
    from sgl_like.frontend.backend.default import (
        cache_stats as cache_stats,
    )
    from sgl_like.frontend.backend.default import (
        flush_cache as flush_cache,
    )
    from sgl_like.frontend.backend.default import (
        get_server_info as get_server_info,
    )
    from sgl_like.frontend.backend.default import (
        set_default_backend as set_default_backend,
    )
    from sgl_like.frontend.backend.record import record as record
    from sgl_like.frontend.backend.remote.clients import (
        Anthropic as Anthropic,
    )
    from sgl_like.frontend.backend.remote.clients import (
        OpenAI as OpenAI,
    )
    from sgl_like.frontend.backend.remote.clients import (
        OpenAICompatible as OpenAICompatible,
    )
    from sgl_like.frontend.backend.remote.runtime_endpoint import (
        RuntimeEndpoint as RuntimeEndpoint,
    )
    from sgl_like.frontend.backend.replay import replay as replay
    from sgl_like.frontend.backend.runtime import Runtime as Runtime
    from sgl_like.frontend.bodies.hooks import Event as Event
    from sgl_like.frontend.bodies.hooks import on as on
    from sgl_like.frontend.bodies.otel import instrument_opentelemetry as instrument_opentelemetry
    from sgl_like.frontend.bodies.workers import set_worker_threads as set_worker_threads
    from sgl_like.frontend.choices import (
        ChoicesDecision as ChoicesDecision,
    )
    from sgl_like.frontend.choices import (
        ChoicesSamplingMethod as ChoicesSamplingMethod,
    )
    from sgl_like.frontend.choices import (
        greedy_token_selection as greedy_token_selection,
    )
    from sgl_like.frontend.choices import (
        token_length_normalized as token_length_normalized,
    )
    from sgl_like.frontend.choices import (
        unconditional_likelihood_normalized as unconditional_likelihood_normalized,
    )
    from sgl_like.frontend.decorator import function as function
    from sgl_like.frontend.global_config import global_config as global_config
    from sgl_like.frontend.media import image as image
    from sgl_like.frontend.media import video as video
    from sgl_like.frontend.outputs.separation import separate_reasoning as separate_reasoning
    from sgl_like.frontend.outputs.values import GenText as GenText
    from sgl_like.frontend.pinning import pinned as pinned
    from sgl_like.frontend.state import ProgramState as ProgramState
    from sgl_like.frontend.tools.tool_text import tool_instructions as tool_instructions
    from sgl_like.frontend.tools.tools import ToolCall as ToolCall
    from sgl_like.frontend.typed_gens import gen_int as gen_int
    from sgl_like.frontend.typed_gens import gen_string as gen_string
    from sgl_like.frontend.view.shown import view as view
    from sgl_like.runtime.engine.engine import Engine as Engine
    from sgl_like.runtime.sampling_params import SamplingParams as SamplingParams
    from sgl_like.runtime.tokenizer.named_templates import (
        ChatTemplate as ChatTemplate,
    )
    from sgl_like.runtime.tokenizer.named_templates import (
        get_chat_template as get_chat_template,
    )
    from sgl_like.runtime.tokenizer.named_templates import (
        get_chat_template_by_model_path as get_chat_template_by_model_path,
    )
    from sgl_like.runtime.tokenizer.named_templates import (
        register_chat_template as register_chat_template,
    )
    from sgl_like.runtime.tokenizer.named_templates import (
        register_chat_template_matching_function as register_chat_template_matching_function,
    )

_NAMES_OF = {
    "sgl_like.errors": (
        "ChatTemplateError",
        "ConfigError",
        "ConstraintError",
        "ConstraintTooComplex",
        "DataError",
        "DeadlineExceeded",
        "EngineClosedError",
        "EngineError",
        "EngineUnavailable",
        "ModelLoadError",
        "OutputError",
        "ProgramError",
        "PromptTooLongError",
        "RemoteAuthenticationError",
        "RemoteConnectionError",
        "RemoteError",
        "RemoteRateLimitError",
        "RemoteRequestError",
        "RemoteTimeoutError",
        "ReplayError",
        "RequestAborted",
        "RequestError",
        "SamplingParamsError",
        "SglError",
        "ToolError",
        "TraceError",
        "UnsupportedSchemaError",
        "ValidationError",
    ),
    "sgl_like.frontend.api": (
        "assistant", "assistant_begin", "assistant_end", "gen", "role", "select", "system", "system_begin",
        "system_end", "user", "user_begin", "user_end",
    ),
    "sgl_like.frontend.backend.cache": ("cached",),
    "sgl_like.frontend.backend.remote.clients": ("Anthropic", "OpenAI", "OpenAICompatible"),
    "sgl_like.frontend.backend.remote.runtime_endpoint": ("RuntimeEndpoint",),
    "sgl_like.frontend.backend.record": ("record",),
    "sgl_like.frontend.backend.replay": ("replay",),
    "sgl_like.frontend.backend.default": ("cache_stats", "flush_cache", "get_server_info", "set_default_backend"),
    "sgl_like.frontend.backend.runtime": ("Runtime",),
    "sgl_like.frontend.choices": (
        "ChoicesDecision", "ChoicesSamplingMethod", "greedy_token_selection", "token_length_normalized",
        "unconditional_likelihood_normalized",
    ),
    "sgl_like.frontend.decorator": ("function",),
    "sgl_like.frontend.global_config": ("global_config",),
    "sgl_like.frontend.media": ("image", "video"),
    "sgl_like.frontend.pinning": ("pinned",),
    "sgl_like.frontend.outputs.separation": ("separate_reasoning",),
    "sgl_like.frontend.state": ("ProgramState",),
    "sgl_like.frontend.tools.tool_text": ("tool_instructions",),
    "sgl_like.frontend.tools.tools": ("ToolCall",),
    "sgl_like.frontend.typed_gens": ("gen_int", "gen_string"),
    "sgl_like.frontend.bodies.hooks": ("Event", "on"),
    "sgl_like.frontend.bodies.otel": ("instrument_opentelemetry",),
    "sgl_like.frontend.outputs.values": ("GenText",),
    "sgl_like.frontend.view.shown": ("view",),
    "sgl_like.frontend.bodies.workers": ("set_worker_threads",),
    "sgl_like.runtime.engine.engine": ("Engine",),
    "sgl_like.runtime.sampling_params": ("SamplingParams",),
    "sgl_like.runtime.tokenizer.named_templates": (
        "ChatTemplate", "get_chat_template", "get_chat_template_by_model_path", "register_chat_template",
        "register_chat_template_matching_function",
    ),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # found directly from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
