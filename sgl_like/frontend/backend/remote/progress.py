"""One output as it arrives, and what to ask for if it breaks off.

If nothing was handed on yet, the request is made again. If some was, only the rest is asked for. Our own server goes on
after the tokens that came, as if nothing had happened. Of others it is asked for where that can be done without anybody
noticing: the prompt is extended by the text that came, and the tokens that it took are taken off the limit. Where the
server does not say how many those were, or where a constraint, a seed, a stop string or log-probabilities reach over
the break, there is no such request.
"""

from __future__ import annotations

from dataclasses import replace

from sgl_like.frontend.backend.base import Sink
from sgl_like.frontend.backend.remote.codec import Chat, Tokens
from sgl_like.frontend.backend.remote.request import Request
from sgl_like.frontend.backend.remote.wire import Piece
from sgl_like.runtime.protocol import FinishReason, Output, Usage, new_request_id

__all__ = ["Progress"]


class Progress:
    """Of one output: hands on its pieces, and remembers what another request would need to go on from here.

    Args:
        sink: gets the events.
        stream: whether it wants any but the terminal one.
        tokens: whether ids are the model's own.
    """

    def __init__(self, sink: Sink, stream: bool, tokens: bool) -> None:
        self.stream = stream
        self.finish: FinishReason | None = None
        self.usage = Usage()
        self._sink = sink
        self._tokens = tokens
        self._rid = new_request_id()
        self._before = 0  # completion tokens of requests that broke off
        self._text = ""
        self._ids: list[int] = []
        self._held: list[Output] = []  # for a sink that wants one event only
        self._known: list[int] = []  # tokens of the engine's vocabulary
        self._scored = 0
        self._prompt_scored = False
        self._resumed = False

    def add(self, piece: Piece) -> None:
        """Take note, and hand on."""
        if piece.usage is not None:
            counted = self._before + piece.usage.completion_tokens
            if self._resumed:  # it counts on, but for what its cache had
                self.usage = replace(piece.usage, cached_tokens=self.usage.cached_tokens)
            else:  # a request that is continued has a longer prompt
                first = self.usage if self._before else piece.usage
                self.usage = replace(first, completion_tokens=counted)
        self.finish = piece.finish or self.finish
        ids = piece.token_ids if self._tokens else tuple(map(ord, piece.text))
        self._known += piece.token_ids
        self._scored += len(piece.output_logprobs)
        self._prompt_scored = self._prompt_scored or bool(piece.prompt_logprobs)
        self._text += piece.text
        self._ids.extend(ids)
        output = Output(
            self._rid,
            piece.text,
            ids,
            usage=self.usage,
            prompt_logprobs=piece.prompt_logprobs,
            output_logprobs=piece.output_logprobs,
            reasoning=piece.reasoning,
            forced=piece.forced if self._tokens else (),
        )
        if not self.stream:
            self._held.append(output)
        elif any((output.text, output.reasoning, ids, output.output_logprobs, output.prompt_logprobs)):
            self._sink(output)

    def end(self) -> None:
        """The terminal event."""
        assert self.finish is not None, "an output is complete when it has a reason to be"
        finish = self.finish
        if not self._tokens and isinstance(finish.matched, int):
            finish = FinishReason(finish.type)  # the ids of this output are none of the model's
        ids: list[int] = []
        forced: list[int] = []
        for each in self._held:
            forced += [len(ids) + place for place in each.forced]
            ids += each.token_ids
        self._sink(
            Output(
                self._rid,
                "".join(each.text for each in self._held),
                tuple(ids),
                finish,
                usage=self.usage,
                prompt_logprobs=tuple(place for each in self._held for place in each.prompt_logprobs),
                output_logprobs=tuple(place for each in self._held for place in each.output_logprobs),
                reasoning="".join(each.reasoning for each in self._held),
                forced=tuple(forced),
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
            self._known, self._scored, self._prompt_scored = [], 0, False
            return request
        if request.mode.resume is not None and self._known:
            return self._gone_on_with(request)
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

    def _gone_on_with(self, request: Request) -> Request:
        """From a server that can be told what the output has."""
        self._resumed = True
        logprobs = request.logprobs
        if logprobs is not None and self._prompt_scored:
            logprobs = replace(logprobs, start=None)
        return replace(request, known=tuple(self._known), scored=self._scored, logprobs=logprobs)
