"""`RemoteBackend`: programs on an engine behind HTTP.

    submit    ids -> prompt -> request (checked on the caller's thread) -> coroutine on the loop -> events to the sink

An answer that breaks off is asked for again, or the rest of it (`progress`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sgl_like.errors import EngineClosedError, RemoteError, RequestError, SglError
from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
from sgl_like.frontend.backend.remote import codec, loop
from sgl_like.frontend.backend.remote.codec import Chat, Prompt, Tokens
from sgl_like.frontend.backend.remote.dialect import Dialect
from sgl_like.frontend.backend.remote.http import BrokenOffError, Http, error_message
from sgl_like.frontend.backend.remote.progress import Progress
from sgl_like.frontend.backend.remote.request import Request, mode_for, request_for
from sgl_like.frontend.backend.remote.scoring import scored
from sgl_like.frontend.backend.remote.sse import json_lines, server_sent_events
from sgl_like.frontend.backend.remote.wire import Piece
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS
from sgl_like.runtime.protocol import FinishReason, Output, Usage, new_request_id
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = ["RemoteBackend", "TokenUsage"]

_SUPPORTED = frozenset(SamplingParams.__dataclass_fields__) | LOGPROB_OPTIONS


@dataclass
class TokenUsage:
    """Tokens that a backend's requests took so far, as their servers counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, usage: Usage) -> None:
        """Count one request."""
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens

    def reset(self) -> None:
        """Count from zero."""
        self.prompt_tokens = self.completion_tokens = 0


class RemoteBackend(Backend):
    """Runs programs on a server.

    Args:
        http: the server.
        dialect: the engine it runs.
        model: name of the model there.
        max_retries: how often an answer that broke off is asked for again.
        extra_body: fields merged into every request as they are, for what no parameter stands for.
    """

    def __init__(
        self,
        http: Http,
        dialect: Dialect,
        model: str,
        *,
        max_retries: int,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.dialect = dialect
        self.token_usage = TokenUsage()
        self._http = http
        self._model = model
        self._max_retries = max_retries
        self._extra_body = dict(extra_body or {})
        self._running: set[Future[None]] = set()
        self._closed = False
        weakref.finalize(self, loop.start_closing, http)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.public_url!r}, {self._model!r}, dialect={self.dialect.name!r})"

    @property
    def model_name(self) -> str:
        """Name of the model on the server."""
        return self._model

    @property
    def fingerprint(self) -> str:
        """Changes with the server, its engine, the model, and what is merged into requests."""
        return repr((self._http.public_url, self.dialect.name, self._model, self._extra_body))

    @property
    def supported_params(self) -> frozenset[str]:
        """All: what this engine does not know is refused by `submit`, which can say what it does."""
        return _SUPPORTED

    @property
    def supports_images(self) -> bool:
        """Whether the engine's messages may have images; whether its model sees them, the server says."""
        return self.dialect.chat is not None and self.dialect.chat.images

    @property
    def ids_are_tokens(self) -> bool:
        """False: ids stand for text (see `codec`)."""
        return False

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """Private ids; see `codec`."""
        return codec.encode(segments)

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Marks around the next message; the server puts its own markup in their place."""
        return codec.turn_affixes(role)

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Send a request; see `Backend.submit`."""
        prompt = self._prompt(prompt_ids)
        request = request_for(self.dialect, self._model, prompt, params, self._extra_body)
        request.body(stream)  # whatever cannot be written raises here
        progress = Progress(sink, stream, isinstance(prompt, Tokens))
        return self._start(lambda: self._generate(request, progress), sink)

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """See `Backend.opening`."""
        prompt, chat = self._prompt(prompt_ids), self.dialect.chat
        if not isinstance(prompt, Chat) or chat is None or chat.prefill is not None:
            return None
        return len(prompt_ids) - len(prompt.begun)

    def scores(self, prompt_ids: Sequence[int]) -> bool:
        """Whether this engine can score texts after such a prompt."""
        return mode_for(self.dialect, self._prompt(prompt_ids)).scoring is not None

    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """Score `choices`, or have the model take one; see `Backend.scores`."""
        prompt, texts = self._prompt(prompt_ids), [self._choice(choice) for choice in choices]
        mode = mode_for(self.dialect, prompt)
        if mode.scoring is not None:
            request = request_for(self.dialect, self._model, prompt, {}, self._extra_body)
            work = partial(scored, self._whole_json, mode.scoring, request, texts)
            return self._start(lambda: self._answered(work(), sink), sink)
        if mode.choice is None:
            raise RequestError(
                f"{self.dialect.title} can neither score choices nor be held to them"
                f" (for {'messages' if mode.wire.chat else 'plain text'}); use sgl.gen"
            )
        longest = max(len(text.encode()) for text in texts)  # bytes: no token is shorter
        greedy = {"temperature": 0.0} if "temperature" in mode.params else {}
        given = {"max_new_tokens": longest + 32, **greedy}
        request = request_for(self.dialect, self._model, prompt, given, self._extra_body)
        held = replace(request, choices=tuple(texts))
        held.body(False)
        return self._start(lambda: self._answered(self._choose(held), sink), sink)

    def flush_cache(self) -> bool:
        """False: such a server has no way to be asked."""
        return False

    def shutdown(self) -> None:
        """Close the connections; requests in flight end with an error."""
        self._closed = True
        for future in list(self._running):
            future.cancel()
        loop.start_closing(self._http)

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    # -- to be replaced where ids are tokens ----------------------------------------------------------------------

    def _prompt(self, ids: Sequence[int]) -> Prompt:
        return codec.read(ids)

    def _choice(self, ids: Sequence[int]) -> Any:
        return "".join(text for text, *_ in codec.decode(ids))

    # -- on the loop ----------------------------------------------------------------------------------------------

    def _start(self, work: Callable[[], Awaitable[None]], sink: Sink) -> Handle:
        if self._closed:
            raise EngineClosedError("the backend was shut down")
        future = loop.start(self._guarded(work, sink))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return _Cancel(future.cancel)

    async def _guarded(self, work: Callable[[], Awaitable[None]], sink: Sink) -> None:
        """Run `work`; however it fails, the sink gets its terminal event."""
        try:
            await work()
        except asyncio.CancelledError:
            closed = EngineClosedError("the backend was shut down") if self._closed else None
            sink(Output("", finish=FinishReason("abort", message="the request was cancelled"), error=closed))
            raise
        except Exception as cause:
            error = cause if isinstance(cause, SglError) else RemoteError(f"{self.dialect.title}: {cause!r}")
            if error is not cause:
                error.__cause__ = cause
            sink(Output("", finish=FinishReason("error", message=str(error)), error=error))

    async def _generate(self, request: Request, output: Progress) -> None:
        tries = 0
        while True:
            try:
                async for piece in self._pieces(request, output.stream):
                    output.add(piece)
                    if piece.finish is not None and piece.finish.type == "error":
                        raise self._http.error(
                            RemoteError, request.mode.wire.path(False), str(piece.finish.message)
                        )
                if output.finish is None:
                    path = request.mode.wire.path(output.stream)
                    raise self._http.error(BrokenOffError, path, "ended in the middle of an answer")
                break
            except RemoteError as error:
                if not _may_go_on(error, request):
                    raise
                if (
                    output.finish is not None and output.finish.type != "error"
                ):  # what is missing says nothing more
                    break
                rest = output.rest_of(request)
                if rest is None or tries >= self._max_retries:
                    raise
                request, tries = rest, tries + 1
        self.token_usage.add(output.usage)
        output.end()

    async def _pieces(self, request: Request, stream: bool) -> AsyncIterator[Piece]:
        """What the answer says, piece by piece."""
        wire = request.mode.wire
        stream = stream or wire.only_streams
        body = request.body(stream)
        answer = wire.answer(body)
        if not stream:
            yield answer.read(await self._json("POST", wire.path(False), body))
            return
        events = (json_lines if wire.json_lines else server_sent_events)(
            self._http.stream(wire.path(True), body)
        )
        async for event in events:
            if request.mode.resume is not None and _is_outage(event):
                raise self._http.error(
                    BrokenOffError, wire.path(True), f"broke off: {error_message(dict(event))}"
                )
            self._raise_error_in(event, wire.path(True))
            yield answer.read(event)

    async def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        found = await self._http.json(method, path, body)
        if not isinstance(found, dict | list):
            raise self._http.error(
                RemoteError, path, f"answered with something else than JSON: {found!r:.200}"
            )
        if isinstance(found, dict):
            self._raise_error_in(found, path)
        return found

    async def _whole_json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """`_json`, asked for again if the answer breaks off."""
        for _ in range(self._max_retries):
            try:
                return await self._json(method, path, body)
            except BrokenOffError:
                continue
        return await self._json(method, path, body)

    def _raise_error_in(self, event: Mapping[str, Any], path: str) -> None:
        """Some servers report errors with status 200, in the middle of a stream too."""
        if event.get("error") or event.get("type") == "error" or event.get("object") == "error":
            raise self._http.error(RemoteError, path, f"reported an error: {error_message(dict(event))}")

    async def _answered(self, work: Awaitable[Output], sink: Sink) -> None:
        output = await work
        self.token_usage.add(output.usage)
        sink(output)

    async def _choose(self, request: Request) -> Output:
        text, usage = "", Usage()
        async for piece in self._pieces(request, False):
            text, usage = text + piece.text, piece.usage or usage
        try:
            text = request.mode.chosen(text.strip())
        except (ValueError, KeyError, TypeError) as error:
            what, path = f"was held to choices, but answered {text!r}", request.mode.wire.path(False)
            raise self._http.error(RemoteError, path, what) from error
        return Output(new_request_id(), text, finish=FinishReason("stop"), usage=usage)


def _is_outage(event: Mapping[str, Any]) -> bool:
    """Whether our own server says in a stream that its engine has failed, or that it ends: both will be back."""
    error, ended = event.get("error"), (event.get("meta_info") or {}).get("finish_reason")
    if isinstance(error, Mapping):
        return error.get("code") == "service_unavailable"
    return isinstance(ended, Mapping) and ended.get("message") == "the server is shutting down"


def _may_go_on(error: RemoteError, request: Request) -> bool:
    """Whether an answer that ended with `error` is worth being asked for again, or its rest."""
    if isinstance(error, BrokenOffError):
        return True
    return bool(request.known) and error.status in (502, 503)  # the server is being started again


class _Cancel:
    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        self._cancel()
