"""`RemoteBackend`: programs on an engine behind HTTP.

    submit    ids -> prompt -> request (checked on the caller's thread) -> coroutine on the loop -> events to the sink

An answer that breaks off is asked for again, and if some of it was already handed on, only for the rest, where that
can be done without anybody noticing: the prompt is extended by the text that came, and the tokens that it took are
taken off the limit. Where the server does not say how many those were, or the output is held by a constraint or a
seed, the break is an error.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from sgl_like.errors import EngineClosedError, RemoteError, RequestError, SglError
from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
from sgl_like.frontend.backend.remote import codec, loop
from sgl_like.frontend.backend.remote.codec import Chat, Prompt, Tokens
from sgl_like.frontend.backend.remote.dialect import Dialect, merged
from sgl_like.frontend.backend.remote.http import BrokenOffError, Http, error_message
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
        return self.dialect.chat is not None and self.dialect.name != "triton"

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
        return self._start(self._generate(request, _Output(sink, stream, isinstance(prompt, Tokens))), sink)

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """See `Backend.opening`."""
        prompt, chat = self._prompt(prompt_ids), self.dialect.chat
        if not isinstance(prompt, Chat) or not prompt.begun or chat is None or chat.prefill is not None:
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
            return self._start(self._answered(scored(self._json, mode.scoring, request, texts), sink), sink)
        if mode.choice is None:
            raise RequestError(
                f"{self.dialect.title} can neither score choices nor be held to them"
                f" (for {'messages' if mode.wire.chat else 'plain text'}); use sgl.gen"
            )
        longest = max(len(text.encode()) for text in texts)  # bytes: no token is shorter
        given = {
            "max_new_tokens": longest + 32,
            **({"temperature": 0.0} if "temperature" in mode.params else {}),
        }
        request = request_for(self.dialect, self._model, prompt, given, self._extra_body)
        body = merged(request.body(False), mode.choice.fields(tuple(texts), False))
        return self._start(self._answered(self._choose(request, body), sink), sink)

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

    def _start(self, work: Coroutine[Any, Any, None], sink: Sink) -> Handle:
        if self._closed:
            work.close()
            raise EngineClosedError("the backend was shut down")
        future = loop.start(self._guarded(work, sink))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return _Cancel(future.cancel)

    async def _guarded(self, work: Coroutine[Any, Any, None], sink: Sink) -> None:
        """Run `work`; however it fails, the sink gets its terminal event."""
        try:
            await work
        except asyncio.CancelledError:
            closed = EngineClosedError("the backend was shut down") if self._closed else None
            sink(Output("", finish=FinishReason("abort", message="the request was cancelled"), error=closed))
            raise
        except Exception as cause:
            error = cause if isinstance(cause, SglError) else RemoteError(f"{self.dialect.title}: {cause!r}")
            if error is not cause:
                error.__cause__ = cause
            sink(Output("", finish=FinishReason("error", message=str(error)), error=error))

    async def _generate(self, request: Request, output: _Output) -> None:
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
            except BrokenOffError:
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

    def _raise_error_in(self, event: Mapping[str, Any], path: str) -> None:
        """Some servers report errors with status 200, in the middle of a stream too."""
        if event.get("error") or event.get("type") == "error" or event.get("object") == "error":
            raise self._http.error(RemoteError, path, f"reported an error: {error_message(dict(event))}")

    async def _answered(self, work: Coroutine[Any, Any, Output], sink: Sink) -> None:
        output = await work
        self.token_usage.add(output.usage)
        sink(output)

    async def _choose(self, request: Request, body: dict[str, Any]) -> Output:
        wire = request.mode.wire
        answer, text, usage = wire.answer(body), "", Usage()
        if wire.only_streams:
            pieces = [
                answer.read(event)
                async for event in server_sent_events(self._http.stream(wire.path(True), body))
            ]
        else:
            pieces = [answer.read(await self._json("POST", wire.path(False), body))]
        for piece in pieces:
            text, usage = text + piece.text, piece.usage or usage
        try:
            text = request.mode.chosen(text.strip())
        except (ValueError, KeyError, TypeError) as error:
            path = wire.path(False)
            raise self._http.error(
                RemoteError, path, f"was held to choices, but answered {text!r}"
            ) from error
        return Output(new_request_id(), text, finish=FinishReason("stop"), usage=usage)


class _Cancel:
    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        self._cancel()


class _Output:
    """Hands on the pieces of one output, and remembers what another request would need to go on from here."""

    def __init__(self, sink: Sink, stream: bool, tokens: bool) -> None:
        self.stream = stream
        self.finish: FinishReason | None = None
        self.usage = Usage()
        self._sink = sink
        self._tokens = tokens  # whether ids are the model's
        self._rid = new_request_id()
        self._before = 0  # completion tokens of requests that broke off
        self._text = ""
        self._ids: list[int] = []
        self._held: list[Output] = []  # for a sink that wants one event only

    def add(self, piece: Piece) -> None:
        """Take note, and hand on."""
        if piece.usage is not None:
            counted = self._before + piece.usage.completion_tokens
            first = (
                piece.usage if not self._before else self.usage
            )  # the prompt grows when a request is continued
            self.usage = replace(first, completion_tokens=counted)
        self.finish = piece.finish or self.finish
        ids = piece.token_ids if self._tokens else tuple(map(ord, piece.text))
        self._text += piece.text
        self._ids.extend(ids)
        output = Output(
            self._rid,
            piece.text,
            ids,
            usage=self.usage,
            prompt_logprobs=piece.prompt_logprobs,
            output_logprobs=piece.output_logprobs,
        )
        if not self.stream:
            self._held.append(output)
        elif output.text or output.token_ids or output.output_logprobs or output.prompt_logprobs:
            self._sink(output)

    def end(self) -> None:
        """The terminal event."""
        assert self.finish is not None, "an output is complete when it has a reason to be"
        finish = self.finish
        if not self._tokens and isinstance(
            finish.matched, int
        ):  # the ids of this output are none of the model's
            finish = FinishReason(finish.type)
        self._sink(
            Output(
                self._rid,
                "".join(each.text for each in self._held),
                tuple(token for each in self._held for token in each.token_ids),
                finish,
                usage=self.usage,
                prompt_logprobs=tuple(place for each in self._held for place in each.prompt_logprobs),
                output_logprobs=tuple(place for each in self._held for place in each.output_logprobs),
            )
        )

    def rest_of(self, request: Request) -> Request | None:
        """A request for what is missing; ``None`` if it could not be told from a fresh start."""
        self.finish = None
        if not self._text and not self._ids:
            return request
        params, prompt = request.params, request.prompt
        left = params.max_new_tokens - (self.usage.completion_tokens - self._before)
        if not self.stream:  # nothing was handed on: from the beginning
            self._held, self._text, self._ids, self.usage = [], "", [], Usage()
            return request
        resumable = request.mode.counts and not params.is_constrained and params.seed is None and left > 0
        if not resumable or request.logprobs is not None or params.stop or params.stop_regex:
            return None
        if isinstance(prompt, Chat) and request.mode.prefill is None:
            return None
        new = Tokens((*prompt.ids, *self._ids)) if isinstance(prompt, Tokens) else prompt.extended(self._text)
        self._before, self._text, self._ids = self.usage.completion_tokens, "", []
        fewest = max(0, params.min_new_tokens - (params.max_new_tokens - left))
        return replace(
            request, prompt=new, params=replace(params, max_new_tokens=left, min_new_tokens=fewest)
        )
