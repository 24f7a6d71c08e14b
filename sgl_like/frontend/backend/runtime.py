"""`Runtime`: the engine of this process as a backend for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS, LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams

if TYPE_CHECKING:
    from sgl_like.runtime.engine.engine import Engine

__all__ = ["Runtime"]

_SUPPORTED = frozenset(field.name for field in fields(SamplingParams)) | LOGPROB_OPTIONS


class Runtime(Backend):
    """Runs programs on an engine in this process. No server, no sockets.

    Args:
        model_path: folder or hub id of the model; ``None`` is the embedded demonstration model.
        **engine_options: passed to `sgl_like.Engine`.

    Raises:
        ConfigError, ModelLoadError: as from `sgl_like.Engine`.
    """

    def __init__(self, model_path: str | None = None, **engine_options: Any) -> None:
        super().__init__()
        from sgl_like.runtime.engine.engine import Engine  # loads torch: only when a model is wanted

        self.engine = Engine(model_path=model_path, **engine_options)

    @classmethod
    def from_engine(cls, engine: Engine) -> Runtime:
        """A backend on an engine that already runs, e.g. one that also serves ``engine.generate``."""
        runtime = cls.__new__(cls)
        Backend.__init__(runtime)
        runtime.engine = engine
        return runtime

    @property
    def model_name(self) -> str:
        """Folder or hub id of the model."""
        return self.engine.model_path

    @property
    def fingerprint(self) -> str:
        """Changes with the model's files, and with options that change what it computes."""
        return self.engine.fingerprint

    @property
    def supported_params(self) -> frozenset[str]:
        """All fields of `SamplingParams`, and what asks for log-probabilities."""
        return _SUPPORTED

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """Token ids of the joined text; see `Backend.encode`."""
        ids = self.engine.tokenizer.encode_segments([(text, trusted) for text, trusted, _ in segments])
        first = self.engine.tokenizer.start_ids if start else []
        return ids if ids[: len(first)] == first else [*first, *ids]

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str]:
        """Bytes, or the name of a special token."""
        return self.engine.tokenizer.pieces(ids)

    def token_bytes(self) -> Sequence[bytes | None]:
        """The bytes of each token; ``None`` for special ones."""
        return self.engine.tokenizer.token_bytes

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Markup around the next message, by the model's own chat template."""
        return self.engine.tokenizer.role_affixes(messages, role)

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Queue a request to continue a prompt."""
        sampling = {name: value for name, value in params.items() if name not in LOGPROB_OPTIONS}
        logprobs = LogprobParams.from_options(
            **{name: params[name] for name in params.keys() & LOGPROB_OPTIONS}
        )
        request = GenerateRequest(
            tuple(prompt_ids), SamplingParams.from_dict(sampling), logprobs, stream=stream
        )
        return self._start(request, sink)

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """Queue a request that samples nothing; what choices share is computed once."""
        params = SamplingParams(max_new_tokens=0, temperature=0.0)
        return self._start(GenerateRequest(tuple(prompt_ids), params, choices=choices), sink)

    def _start(self, request: GenerateRequest, sink: Sink) -> Handle:
        self.engine.submit(request, sink)
        return _EngineHandle(self.engine, request.rid)

    def flush_cache(self) -> bool:
        """Forget every cached prefix that is not in use."""
        return self.engine.flush_cache()

    def shutdown(self) -> None:
        """Stop the engine; requests in flight end with an error."""
        self.engine.shutdown()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


class _EngineHandle:
    def __init__(self, engine: Engine, rid: str) -> None:
        self._engine = engine
        self._rid = rid

    def cancel(self) -> None:
        self._engine.abort(self._rid)
