"""`Engine`: a model ready to generate, in this process. SGLang's offline interface, synchronous and asynchronous.

engine = Engine()                                          # the embedded model
engine.generate("Hello", {"max_new_tokens": 8})            # {"text": ..., "output_ids": ..., "meta_info": ...}
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch

from sgl_like.errors import RequestError, SglError
from sgl_like.runtime.cache.host_tier import model_fingerprint
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.config import EngineConfig
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.engine.assembly import aside, choose_device, free_memory, kv_dtype, make_core
from sgl_like.runtime.engine.core import EngineCore, abort_all, add_all
from sgl_like.runtime.engine.info import held_bytes, read_stats
from sgl_like.runtime.engine.intake import Intake
from sgl_like.runtime.engine.loop import EngineLoop
from sgl_like.runtime.engine.offline import Collector, read_call
from sgl_like.runtime.engine.pins import Pin, PinRequest
from sgl_like.runtime.models.load import (
    SMALL_MODEL,
    find_model,
    load_model,
    parameter_count,
    read_model_config,
)
from sgl_like.runtime.protocol import GenerateRequest, Output, OutputSink
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer


class Engine:
    """A model, its KV cache and its scheduler, on a thread of their own.

    Args:
        model_path: a Hugging Face folder or hub id; ``None`` is the embedded model.
        **options: fields of `EngineConfig`, such as ``dtype``, ``kv_cache_memory``, ``max_running_requests``.

    Raises:
        ModelLoadError: the model cannot be loaded.
        ConfigError: an option is unknown or out of range.
    """

    def __init__(self, model_path: str | Path | None = None, **options: Any) -> None:
        config = EngineConfig.from_options(options)
        folder = find_model(model_path, with_weights=config.load_format != "dummy")
        shape = read_model_config(folder, config.context_length)
        self.tokenizer = Tokenizer(folder, shape.vocab_size, config.chat_template)
        device = choose_device(config)
        model = aside(
            load_model,
            folder,
            config.dtype,
            config.load_format,
            config.context_length,
            config.quantization,
            device,
        )
        self.model_path = str(folder)
        kept_as = kv_dtype(config, model)
        slot_bytes = KVPool.bytes_per_slot(shape.layers, shape.kv_heads, shape.head_dim, kept_as)
        self.config = config.resolve(shape.max_position, slot_bytes, free_memory(device))
        assert self.config.kv_cache_memory is not None and self.config.context_length is not None
        slots = self.config.kv_cache_memory // slot_bytes
        slots -= slots % config.page_size
        limits = Limits(max_step_seconds=config.constraint_step_seconds)
        self._intake = Intake(self.tokenizer, shape.vocab_size, self.config.context_length, slots, limits)
        self._weights_bytes, self._kv_bytes = held_bytes(model), slots * slot_bytes
        self.fingerprint = model_fingerprint(
            folder, model.dtype, kept_as, config.quantization, config.load_format, config.context_length
        )
        core = aside(make_core, self.config, model, slots, self.fingerprint, self.tokenizer.eos_token_ids)
        self._loop = EngineLoop(core)
        self.activity = self._loop.activity
        threads = config.threads or (1 if parameter_count(shape) < SMALL_MODEL else None)
        if threads is not None:  # torch counts threads per calling thread
            self._loop.post(lambda core: torch.set_num_threads(threads))
        self._in_flight: dict[str, list[str]] = {}  # what the engine's core calls the parts of each request

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()

    # Requests and events: what programs, servers and the calls below are made of.

    def submit(self, request: GenerateRequest, on_output: OutputSink) -> None:
        """Queue a request. `on_output` gets its events on the engine's thread, the last one terminal.

        Raises:
            RequestError: the request cannot be run; it gets no event then.
            EngineClosedError: the engine is shut down.
        """
        if request.rid in self._in_flight:
            raise RequestError(f"a request with id {request.rid!r} is in flight already")
        if len(self._in_flight) >= self.config.max_queued_requests:
            raise RequestError(f"the queue is full: {self.config.max_queued_requests} requests are in flight")

        in_flight = self._in_flight  # not self: a request must not keep a forgotten engine alive

        def deliver(output: Output) -> None:
            if output.is_terminal:
                in_flight.pop(output.rid, None)
            on_output(output)

        submitted = time.monotonic()
        admitted = self._intake.admit_parts(request, deliver)
        for each in admitted:
            each.arrived = submitted
            if request.deadline is not None:
                each.deadline = submitted + request.deadline
            if request.start_within is not None:
                each.start_deadline = submitted + request.start_within
        self._in_flight[request.rid] = [each.rid for each in admitted]
        try:
            self._loop.post(lambda core: add_all(core, admitted))
        except SglError:
            self._in_flight.pop(request.rid, None)
            raise

    def abort(self, rid: str) -> None:
        """End a request; its terminal event has a `RequestAborted`. Unknown ids are ignored."""
        if not self._loop.closed:
            with contextlib.suppress(SglError):
                parts = self._in_flight.get(rid, ())
                self._loop.post(lambda core: abort_all(core, parts))

    # SGLang's offline interface.

    def generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        stream: bool = False,
        *,
        return_logprob: bool | list[bool] | None = None,
        logprob_start_len: int | list[int] | None = None,
        top_logprobs_num: int | list[int] | None = None,
        token_ids_logprob: list[int] | list[list[int]] | None = None,
        return_text_in_logprobs: bool | None = None,
        priority: int = 0,
        deadline: float | None = None,
        namespace: str = "",
    ) -> Any:
        """Generate for one prompt or several.

        Args:
            prompt: text, or a list of texts.
            sampling_params: fields of `SamplingParams` as a dict; one for all, or a list with one per prompt.
            input_ids: instead of `prompt`, a list of token ids or a list of such lists.
            stream: return an iterator instead of waiting.
            return_logprob: report log-probabilities, as ``meta_info["output_token_logprobs"]``: a list of
                ``(logprob, token id, text or None)``. They are of the model's own distribution, before temperature,
                penalties and constraints. For several prompts this and the next three may be lists with one each.
            logprob_start_len: report those of the prompt's tokens from this place on, too, as
                ``"input_token_logprobs"``; the first of them has no value. -1: none.
            top_logprobs_num: report so many of the likeliest tokens at each place, at most 20
                (``"output_top_logprobs"``, ``"input_top_logprobs"``).
            token_ids_logprob: report these tokens at each place (``"output_token_ids_logprobs"``,
                ``"input_token_ids_logprobs"``).
            return_text_in_logprobs: with the tokens' texts.
            priority: see `GenerateRequest`, as for the next two.
            deadline: in seconds from now.
            namespace: whose cached prefixes may be used.

        Returns:
            ``{"text", "output_ids", "meta_info"}``; a list of them for several prompts, or if the parameters' ``n`` is
            more than 1: n for each prompt, one after the other. With `stream` an iterator of such dicts, each with the
            output so far (of several: with their ``"index"``).

        Raises:
            RequestError: bad input; nothing was started.
            EngineError: the engine failed or was shut down.
        """
        logprobs = {
            "return_logprob": return_logprob,
            "logprob_start_len": logprob_start_len,
            "top_logprobs_num": top_logprobs_num,
            "token_ids_logprob": token_ids_logprob,
            "return_text_in_logprobs": return_text_in_logprobs,
        }
        call = read_call(
            self.tokenizer, prompt, input_ids, sampling_params, logprobs,
            {"stream": stream, "priority": priority, "deadline": deadline, "namespace": namespace},
        )  # fmt: skip
        events: SimpleQueue[tuple[int, Output]] = SimpleQueue()
        collectors = self._start(call.requests, lambda i, output: events.put((i, output)))
        chunks = self._chunks(collectors, call.many, events)
        if stream:
            return chunks
        for _ in chunks:
            pass
        results = [collector.result() for collector in collectors]
        return results if call.many else results[0]

    async def async_generate(
        self,
        prompt: str | Sequence[str] | None = None,
        sampling_params: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        stream: bool = False,
        *,
        return_logprob: bool | list[bool] | None = None,
        logprob_start_len: int | list[int] | None = None,
        top_logprobs_num: int | list[int] | None = None,
        token_ids_logprob: list[int] | list[list[int]] | None = None,
        return_text_in_logprobs: bool | None = None,
        priority: int = 0,
        deadline: float | None = None,
        namespace: str = "",
    ) -> Any:
        """`generate` for asyncio; with `stream` the result is an asynchronous iterator. Cancelling ends the
        requests.
        """
        logprobs = {
            "return_logprob": return_logprob,
            "logprob_start_len": logprob_start_len,
            "top_logprobs_num": top_logprobs_num,
            "token_ids_logprob": token_ids_logprob,
            "return_text_in_logprobs": return_text_in_logprobs,
        }
        call = read_call(
            self.tokenizer, prompt, input_ids, sampling_params, logprobs,
            {"stream": stream, "priority": priority, "deadline": deadline, "namespace": namespace},
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[tuple[int, Output]] = asyncio.Queue()

        def receive(index: int, output: Output) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens any more
                loop.call_soon_threadsafe(events.put_nowait, (index, output))

        collectors = self._start(call.requests, receive)
        chunks = self._async_chunks(collectors, call.many, events)
        if stream:
            return chunks
        async for _ in chunks:
            pass
        results = [collector.result() for collector in collectors]
        return results if call.many else results[0]

    def encode(
        self,
        prompt: str | Sequence[str] | None = None,
        input_ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
        *,
        priority: int = 0,
        deadline: float | None = None,
        namespace: str = "",
    ) -> Any:
        """The embedding of a prompt or several: the mean of the hidden states of all its tokens, after the last norm.

        It is not normalised to length 1. Arguments, errors and results are those of `generate`; in place of the text a
        result has ``"embedding"``, a list of floats.
        """
        call = read_call(
            self.tokenizer, prompt, input_ids, {"max_new_tokens": 0}, {},
            {"embed": True, "priority": priority, "deadline": deadline, "namespace": namespace},
        )  # fmt: skip
        events: SimpleQueue[tuple[int, Output]] = SimpleQueue()
        collectors = self._start(call.requests, lambda i, output: events.put((i, output)))
        for _ in self._chunks(collectors, call.many, events):
            pass
        results = [collector.result() for collector in collectors]
        return results if call.many else results[0]

    def pin(self, prefix: str | Sequence[int], namespace: str = "") -> Pin:
        """Compute a prefix unless it is cached, and keep it cached until `unpin`. Waits until that is done.

        A pin yields (the oldest first) only when a request would have no room beside it even alone.

        Args:
            prefix: text, or token ids.
            namespace: whose prefix it is; see `GenerateRequest.namespace`.

        Raises:
            RequestError: the prefix is no prompt, or would pin more than half of the KV pool.
            EngineError: the engine failed or was shut down.
        """
        tokens = self.tokenizer.encode(prefix) if isinstance(prefix, str) else list(prefix)
        pinned = PinRequest(tokens, namespace)
        admitted = self._intake.admit(pinned.request, pinned)

        def start(core: EngineCore) -> None:
            pinned.core = core
            core.add(admitted)

        self._loop.post(start)
        return pinned.done.result()

    def unpin(self, pin: Pin) -> bool:
        """Let a pinned prefix be evicted like any other; whether it was still pinned."""
        return self._loop.call(lambda core: core.memory.unpin(pin.number))

    def prepare(self, params: SamplingParams) -> Future[None]:
        """Compile the constraint of some parameters in the background, so that their first request need not wait.

        What is wrong with it is the future's exception, a ConstraintError.
        """
        return self._intake.compiler.in_background(self._intake.prepare, params)

    def flush_cache(self) -> bool:
        """Forget all prefixes that nobody uses, also those in `cache_dir`; whether nothing is cached now."""
        return self._loop.call(lambda core: core.flush_cache())

    def tree(self, limit: int = 200) -> dict[str, Any]:
        """The hottest prefixes of the cache and the last evictions; see `runtime/cache/tree_view.py`."""
        return self._loop.call(lambda core: core.memory.view(limit))

    def stats(self) -> dict[str, Any]:
        """Counts since the start, the state of queue and KV slots, and histograms of steps; see `read_stats`."""
        return self._loop.call(read_stats) | self._intake.constraint_stats

    def get_server_info(self) -> dict[str, Any]:
        """The options, `stats`, the share of prompt tokens that came from the cache, and bytes of memory by part."""
        stats = self.stats()
        prompts = stats["prompt_tokens"]
        return {
            "model_path": self.model_path,
            **asdict(self.config),
            **stats,
            "cache_hit_rate": stats["cached_tokens"] / prompts if prompts else 0.0,
            "memory_bytes": {
                "weights": self._weights_bytes,
                "kv_cache": self._kv_bytes,
                "constraints": self._intake.constraint_bytes,
            },
        }

    def check_invariants(self) -> None:
        """Assert what must hold between two steps (for tests and debugging)."""
        self._loop.call(lambda core: core.check_invariants())

    def shutdown(self) -> None:
        """End all requests and stop the engine's thread. May be called twice."""
        self._loop.close()

    def _start(
        self, requests: Sequence[GenerateRequest], receive: Callable[[int, Output], None]
    ) -> list[Collector]:
        """Submit all requests, or none."""
        collectors = [Collector(request, time.perf_counter()) for request in requests]
        started: list[str] = []
        try:
            for index, request in enumerate(requests):
                self.submit(request, partial(receive, index))
                started.append(request.rid)
        except BaseException:
            self._abort_all(started)
            raise
        return collectors

    def _chunks(
        self, collectors: Sequence[Collector], many: bool, events: SimpleQueue[tuple[int, Output]]
    ) -> Iterator[dict[str, Any]]:
        try:
            while not all(collector.done for collector in collectors):
                try:  # now and then the main thread looks for a Ctrl-C that came just before it began to wait
                    index, output = events.get(timeout=0.5)
                except Empty:
                    continue
                yield collectors[index].add(output, index if many else None)
        finally:
            self._abort_all([c.rid for c in collectors if not c.done])

    async def _async_chunks(
        self, collectors: Sequence[Collector], many: bool, events: asyncio.Queue[tuple[int, Output]]
    ) -> AsyncIterator[dict[str, Any]]:
        try:
            while not all(collector.done for collector in collectors):
                index, output = await events.get()
                yield collectors[index].add(output, index if many else None)
        finally:
            self._abort_all([c.rid for c in collectors if not c.done])

    def _abort_all(self, rids: Sequence[str]) -> None:
        for rid in rids:
            self.abort(rid)
