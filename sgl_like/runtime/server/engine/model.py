"""The engine with a model, as its process holds it. Importing this loads torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_like.runtime.engine.activity import Activity
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.engine.local import answer, info_of
from sgl_like.runtime.server.engine.wire import EngineInfo, Question

_WARM_SCHEMA = '{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}'
_WARM_TOKENS = 16
STEP_SECONDS = 0.25
"""More than `vetting.py` allows: this thread has to share the processor."""


class ModelEngine:
    """A `HostedEngine`.

    Args:
        model: folder or hub id; ``None`` is the embedded model.
        options: fields of `EngineConfig`.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: an option cannot be used.
    """

    def __init__(self, model: str | None, options: Mapping[str, Any]) -> None:
        self._engine = Engine(model, **{"constraint_step_seconds": STEP_SECONDS, **options})

    @property
    def activity(self) -> Activity:
        """See `HostedEngine`."""
        return self._engine.activity

    def info(self) -> EngineInfo:
        """See `HostedEngine`."""
        return info_of(self._engine)

    def warm_up(self) -> None:
        """One free and one constrained output, so that kernels are loaded or compiled, and common masks are there."""
        info = self.info()
        room = min(info.context_length, info.kv_slots) - 2
        if room < 1:
            return
        tokens = min(_WARM_TOKENS, room)
        sampled = {"max_new_tokens": tokens, "ignore_eos": True, "temperature": 1.0, "top_p": 0.9, "seed": 0}
        self._engine.generate(input_ids=[[0], [0]], sampling_params=sampled)
        if tokens == _WARM_TOKENS:
            self._engine.generate(
                input_ids=[0], sampling_params={"max_new_tokens": tokens, "json_schema": _WARM_SCHEMA}
            )
        self._engine.flush_cache()

    def prepare(self, params: SamplingParams) -> None:
        """See `HostedEngine`."""
        if params.is_constrained:
            self._engine.prepare(params).result()

    def submit(self, request: GenerateRequest, on_output: OutputSink) -> None:
        """See `HostedEngine`."""
        self._engine.submit(request, on_output)

    def abort(self, rid: str) -> None:
        """See `HostedEngine`."""
        self._engine.abort(rid)

    def answer(self, what: Question, arguments: Mapping[str, Any]) -> Any:
        """See `HostedEngine`."""
        return answer(self._engine, what, arguments)

    def shutdown(self) -> None:
        """See `HostedEngine`."""
        self._engine.shutdown()
