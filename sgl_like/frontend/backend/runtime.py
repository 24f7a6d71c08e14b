"""`Runtime`: the engine of this process as a backend for programs."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import fields
from itertools import count
from typing import TYPE_CHECKING, Any

from sgl_like.errors import ConfigError, RequestError
from sgl_like.frontend.backend.base import Backend, CacheStats, Handle, Segment, Sink, ToolForm
from sgl_like.frontend.backend.server_args import engine_options
from sgl_like.frontend.params import derived_seed
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS, LogprobParams
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams

if TYPE_CHECKING:
    from sgl_like.runtime.engine.engine import Engine
    from sgl_like.runtime.engine.pins import Pin
    from sgl_like.runtime.server.embedded import EmbeddedServer
    from sgl_like.runtime.tokenizer.chat_template import JinjaTemplate
    from sgl_like.runtime.tokenizer.named_templates import ChatTemplate
    from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["Runtime"]

_SUPPORTED = frozenset(field.name for field in fields(SamplingParams)) | LOGPROB_OPTIONS


class Runtime(Backend):
    """Runs programs on an engine in this process. No server and no sockets, unless `url` is asked for.

    Args:
        model_path: folder or hub id of the model; ``None`` is the embedded demonstration model.
        log_level: of what the engine logs, e.g. ``"info"``.
        random_seed: makes the draws of gens that have no seed repeatable: the n-th request draws from the n-th seed.
        **options: of `sgl_like.Engine`, or SGLang's server arguments. Those without meaning here are ignored with a
            warning, those that cannot be honoured are an error.

    Raises:
        ConfigError, ModelLoadError: as from `sgl_like.Engine`.
    """

    def __init__(
        self,
        model_path: str | None = None,
        *,
        log_level: str | None = None,
        random_seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._server: EmbeddedServer | None = None
        self._server_lock = threading.Lock()
        chosen = engine_options(options)
        if log_level is not None:
            _set_log_level(log_level)
        from sgl_like.runtime.engine.engine import Engine  # loads torch: only when a model is wanted

        self.engine = Engine(model_path=model_path, **chosen)
        self._seeds = None if random_seed is None else (derived_seed(random_seed, (n,)) for n in count())

    @classmethod
    def from_engine(cls, engine: Engine) -> Runtime:
        """A backend on an engine that already runs, e.g. one that also serves ``engine.generate``."""
        runtime = cls.__new__(cls)
        Backend.__init__(runtime)
        runtime._server = None
        runtime._server_lock = threading.Lock()
        runtime.engine = engine
        runtime._seeds = None
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
        """Token ids of the joined text; see `Backend.encode`.

        Raises:
            RequestError: SGLang's ``Runtime.encode(text)`` is meant, which asks an embedding model.
        """
        if segments and isinstance(segments[0], str):
            raise RequestError(
                "Runtime.encode(text): there are no embedding models; for tokens use get_tokenizer()"
            )
        ids = self.engine.tokenizer.encode_segments([(text, trusted) for text, trusted, _ in segments])
        first = self.engine.tokenizer.start_ids if start else []
        return ids if ids[: len(first)] == first else [*first, *ids]

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str]:
        """Bytes, or the name of a special token."""
        return self.engine.tokenizer.pieces(ids)

    def token_bytes(self) -> Sequence[bytes | None]:
        """The bytes of each token; ``None`` for special ones."""
        return self.engine.tokenizer.token_bytes

    @property
    def tool_form(self) -> ToolForm | None:
        """Read off the model's own chat template."""
        return self.engine.tokenizer.tool_form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Markup around the next message, by the model's own chat template."""
        return self.engine.tokenizer.role_affixes(messages, role)

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Queue a request to continue a prompt."""
        sampling = {name: value for name, value in params.items() if name not in LOGPROB_OPTIONS}
        if self._seeds is not None and sampling.get("seed") is None:
            sampling["seed"] = next(self._seeds)
        if any(self.engine.tokenizer.template_stops) and not sampling.get("ignore_eos"):
            self._add_template_stops(sampling)
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

    def _add_template_stops(self, sampling: dict[str, Any]) -> None:
        """A named chat template says what ends a message; the model's own leaves that to end-of-sequence tokens."""
        texts, tokens = self.engine.tokenizer.template_stops
        for name, own in (("stop", texts), ("stop_token_ids", tokens)):
            given = sampling.get(name)
            listed = (given,) if isinstance(given, str | int) else tuple(given or ())
            sampling[name] = (*listed, *own)

    # -- the cache ------------------------------------------------------------------------------------------

    def hold_prefix(self, prefix_ids: Sequence[int]) -> Callable[[], None]:
        """Pin a prefix; see `Backend.hold_prefix`."""
        pin = self.engine.pin(prefix_ids)

        def release() -> None:
            self.engine.unpin(pin)

        return release

    def prepare(self, params: Mapping[str, Any]) -> Future[None] | None:
        """Compile a constraint in the background; see `Backend.prepare`."""
        given = {name: value for name, value in params.items() if name not in LOGPROB_OPTIONS}
        checked = SamplingParams.from_dict(given)
        return self.engine.prepare(checked) if checked.is_constrained else None

    def flush_cache(self) -> bool:
        """Forget every cached prefix that is not in use."""
        return self.engine.flush_cache()

    def cache_prefix(self, prefix: str) -> None:
        """Compute a prefix and cache it, until it is evicted. Waits until that is done."""
        self.engine.generate(prefix, {"max_new_tokens": 0})

    def pin(self, prefix: str | Sequence[int]) -> Pin:
        """Compute a prefix (text or token ids) and keep it cached until `unpin`. Waits until that is done.

        Raises:
            RequestError: it is no prompt, or would pin more than half of the KV pool.
        """
        return self.engine.pin(prefix)

    def unpin(self, pin: Pin) -> bool:
        """Let a pinned prefix be evicted like any other; whether it was still pinned."""
        return self.engine.unpin(pin)

    def cache_stats(self) -> CacheStats:
        """What the prefix cache did so far, and holds."""
        return CacheStats.of(self.engine.stats())

    # -- SGLang's Runtime and RuntimeEndpoint -----------------------------------------------------------------

    @property
    def endpoint(self) -> Runtime:
        """What runs programs: this."""
        return self

    @property
    def url(self) -> str:
        """Where the engine answers over HTTP: a server on this machine that starts when this is read for the first
        time, with everything that ``sgl-like serve`` has, and ends with the runtime.
        """
        with self._server_lock:
            if self._server is None:
                from sgl_like.runtime.server.embedded import EmbeddedServer  # most runtimes never have one

                self._server = EmbeddedServer(self.engine)
            return self._server.url

    @property
    def model_info(self) -> dict[str, Any]:
        """``{"model_path": ...}``."""
        return {"model_path": self.model_name}

    def get_model_name(self) -> str:
        """The same as `model_name`."""
        return self.model_name

    def get_server_info(self) -> dict[str, Any]:
        """Options, counts and memory of the engine; see `sgl_like.Engine.get_server_info`."""
        return {"tokenizer_path": self.model_name, **self.engine.get_server_info()}

    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer: ``encode(text)``, ``decode(ids)``, ``apply_chat_template(messages)``."""
        return self.engine.tokenizer

    def get_chat_template(self) -> JinjaTemplate | ChatTemplate:
        """How messages are written."""
        return self.engine.tokenizer.chat_template

    def generate(self, prompt: str | Sequence[str], sampling_params: Any = None, **options: Any) -> str:
        """`sgl_like.Engine.generate`, its result as JSON text, as SGLang's ``Runtime`` returns it."""
        return json.dumps(self.engine.generate(prompt, sampling_params, **options))

    async def async_generate(self, prompt: str, sampling_params: Any = None) -> AsyncIterator[str]:
        """The output for one prompt in pieces, as they arrive."""
        shown = 0
        async for chunk in await self.engine.async_generate(prompt, sampling_params, stream=True):
            text = chunk["text"][shown:]
            shown += len(text)
            if text:
                yield text

    # -- the end ----------------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """Stop the engine; requests in flight end with an error."""
        with self._server_lock:
            server, self._server = self._server, None
        self.engine.shutdown()
        if server is not None:
            server.close()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def _set_log_level(level: str) -> None:
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise ConfigError(f"log_level must be one of {', '.join(names).lower()}, not {level!r}")
    logging.getLogger("sgl_like").setLevel(level.upper())


class _EngineHandle:
    def __init__(self, engine: Engine, rid: str) -> None:
        self._engine = engine
        self._rid = rid

    def cancel(self) -> None:
        self._engine.abort(self._rid)
