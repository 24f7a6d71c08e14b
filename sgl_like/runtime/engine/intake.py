"""Checks that turn a client's request into one the step loop can run without surprises.

Runs on the caller's thread: tokenising, compiling a constraint and refusing bad input cost the step loop nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgl_like.errors import ConstraintError, PromptTooLongError, RequestError
from sgl_like.runtime.constrain.base import Limits, Matcher
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.occurrences import OccurrenceSearch, Pattern
from sgl_like.runtime.engine.choices import split_choices
from sgl_like.runtime.engine.constraints import matcher_of, vocabulary_of
from sgl_like.runtime.engine.ending import Ending, Needs, check_budget, needs
from sgl_like.runtime.engine.output import OutputProcessor
from sgl_like.runtime.engine.patience import UNBOUNDED, Patience
from sgl_like.runtime.engine.pooling import Pooling
from sgl_like.runtime.engine.request import IntBuffer, Request
from sgl_like.runtime.engine.resume import resume
from sgl_like.runtime.engine.scores import Scores
from sgl_like.runtime.engine.statistics import COMPILE_SECONDS, Histogram
from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.sampling.bad_words import BadWords, TokenTable
from sgl_like.runtime.sampling.edits import RowEdits, has_edits
from sgl_like.runtime.sampling.sampler import RowSampler
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

MAX_PATTERNS = 64
"""Compiled stop regexes, and needs of constraints, that are kept for later requests."""


class Intake:
    """Makes `Request` objects.

    Args:
        tokenizer: the model's.
        vocab_size: number of the model's logits.
        context_length: longest sequence of the model.
        kv_slots: longest sequence that fits the KV pool alone.
        limits: of constraints.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        context_length: int,
        kv_slots: int,
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context_length = context_length
        self._kv_slots = kv_slots
        self._compiler: GrammarCompiler | None = None
        self._token_table: TokenTable | None = None
        self._patterns: dict[str, Pattern] = {}
        self._needs: dict[tuple[str | None, ...], Needs] = {}
        self._lock = threading.Lock()
        self._compile_seconds = Histogram(COMPILE_SECONDS)
        self._output = OutputProcessor(tokenizer.eos_token_ids)

    def admit_parts(self, source: GenerateRequest, sink: OutputSink) -> list[Request]:
        """`admit` for a request that may have choices; then the result are those that score them together.

        Raises:
            RequestError: or one of its subclasses; the message names what is wrong.
        """
        for choice in source.choices:
            self._check_ids("choices", choice)
        requests = [self.admit(one, part_sink) for one, part_sink in split_choices(source, sink)]
        if source.choices:
            for request in requests:
                request.ranked = len(source.input_ids) - 1
        return requests

    def admit(self, source: GenerateRequest, sink: OutputSink) -> Request:
        """Check everything and build the request.

        Raises:
            RequestError: or one of its subclasses; the message names what is wrong.
        """
        params = source.params
        given = self._check_tokens(source.input_ids)
        if source.prompt_length < 1:
            raise RequestError(
                "the prompt is empty: at least one token is needed before what is produced already"
            )
        tokens, known = given[: source.prompt_length], given[source.prompt_length :]
        if source.embed and (
            params.max_new_tokens or source.logprobs is not None or params.is_constrained or source.produced
        ):
            raise RequestError(
                "a request with embed is only computed: max_new_tokens=0, no logprobs and no constraint"
            )
        if params.n > 1:
            raise RequestError(f"n={params.n}: one request is one output; Engine.generate makes n of them")
        self._check_ids("stop_token_ids", params.stop_token_ids)
        self._check_ids("allowed_token_ids", params.allowed_token_ids)
        self._check_ids("logit_bias", [token for token, _ in params.logit_bias])
        matcher = self.matcher(params)
        max_tokens = self._check_length(len(tokens), params.max_new_tokens)
        request = Request(
            source=source,
            sink=sink,
            max_tokens=max_tokens,
            sampler=RowSampler.of(params),
            detokenizer=self._tokenizer.detokenizer(
                params.stop, params.no_stop_trim, params.skip_special_tokens, self._search(params.stop_regex)
            ),
            matcher=matcher,
            tokens=IntBuffer(tokens),
            edits=self._edits(params, tokens, matcher is not None),
            patience=UNBOUNDED if matcher is None else Patience(self._limits.max_step_seconds),
            ending=None if matcher is None else self._ending(matcher, params, max_tokens - len(tokens)),
            scores=self._scores(source),
            pooling=Pooling(len(tokens)) if source.embed else None,
        )
        if source.produced:
            resume(request, known.tolist(), self._output)
        return request

    def matcher(self, params: SamplingParams) -> Matcher | None:
        """The compiled constraint of some parameters, or ``None`` if they have none.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        return matcher_of(self.compiler, params) if params.is_constrained else None

    def prepare(self, params: SamplingParams) -> None:
        """Compile a constraint, and find the mask of its first token and what its shortest output takes.

        Raises:
            ConstraintError: it cannot be compiled.
        """
        matcher = self.matcher(params)
        if matcher is not None:
            matcher.fill_mask(np.zeros((1, self.compiler.vocabulary.words), dtype=np.int32), 0)
            self._needed(matcher, params)

    @property
    def compiler(self) -> GrammarCompiler:
        """Compiles constraints for this vocabulary; made when first used."""
        with self._lock:
            if self._compiler is None:
                vocabulary = vocabulary_of(self._tokenizer, self._vocab_size)
                self._compiler = GrammarCompiler(vocabulary, self._limits, took=self._compile_seconds.add)
            return self._compiler

    def _ending(self, matcher: Matcher, params: SamplingParams, room: int) -> Ending | None:
        """Raises ConstraintError or PromptTooLongError: no output fits."""
        if params.max_new_tokens == 0:
            return None
        need = self._needed(matcher, params)
        check_budget(need, params.max_new_tokens, room)
        return Ending(self.compiler.vocabulary, need.watch)

    def _needed(self, matcher: Matcher, params: SamplingParams) -> Needs:
        """What outputs of a constraint need; `matcher` is fresh."""
        sources = (params.regex, params.json_schema, params.ebnf, params.structural_tag)
        key = (*sources, params.property_order, params.whitespace)
        need = self._needs.get(key)
        if need is None:
            need = needs(matcher, self.compiler.vocabulary, params)
            if len(self._needs) >= MAX_PATTERNS:
                self._needs = {}
            self._needs[key] = need
        return need

    def _search(self, sources: Sequence[str]) -> OccurrenceSearch | None:
        """Raises ConstraintError: one of the regexes is bad."""
        if not sources:
            return None
        patterns = []
        for source in sources:
            pattern = self._patterns.get(source)
            if pattern is None:
                try:
                    pattern = Pattern(source)
                except ConstraintError as error:
                    raise type(error)(f"stop_regex: {error}") from None
                if len(self._patterns) >= MAX_PATTERNS:
                    self._patterns = {}
                self._patterns[source] = pattern
            patterns.append(pattern)
        return OccurrenceSearch(patterns)

    def _edits(self, params: SamplingParams, prompt: NDArray[np.int64], constrained: bool) -> RowEdits | None:
        if not has_edits(params):
            return None
        ends = set(params.stop_token_ids)
        if constrained or not params.ignore_eos:
            ends.update(token for token in self._tokenizer.eos_token_ids if token < self._vocab_size)
        words = None
        if params.bad_words:
            with self._lock:
                if self._token_table is None:
                    self._token_table = TokenTable(self._tokenizer.token_bytes[: self._vocab_size])
            words = BadWords(
                self._token_table, [word.encode(errors="surrogatepass") for word in params.bad_words]
            )
        bannable = (ends if params.min_new_tokens else set()) | set(words.always.tolist() if words else ())
        if len(bannable) >= self._vocab_size:
            raise RequestError("bad_words and min_new_tokens leave no token of the vocabulary")
        return RowEdits(params, prompt, ends, words, self._vocab_size)

    def _check_ids(self, name: str, tokens: Iterable[int]) -> None:
        for token in tokens:
            if not 0 <= token < self._vocab_size:
                raise RequestError(f"{name}: {token} is outside the vocabulary of {self._vocab_size}")

    @property
    def constraint_bytes(self) -> int:
        """Approximate bytes of memory that compiled constraints and their tables hold."""
        compiler = self._compiler
        return 0 if compiler is None else compiler.nbytes

    @property
    def constraint_stats(self) -> dict[str, Any]:
        """How many constraints were compiled, found compiled already, and refused; and how long compiling took."""
        compiler = self._compiler
        return {
            "constraints_compiled": 0 if compiler is None else compiler.compiled,
            "constraints_found": 0 if compiler is None else compiler.found,
            "constraints_refused": 0 if compiler is None else compiler.refused,
            "compile_seconds": self._compile_seconds.read(),
        }

    def _check_tokens(self, input_ids: Sequence[int]) -> NDArray[np.int64]:
        if len(input_ids) == 0:
            raise RequestError("the prompt is empty: at least one token is needed")
        try:
            tokens = np.asarray(input_ids, dtype=np.int64)
        except (TypeError, ValueError, OverflowError) as error:
            raise RequestError(f"input_ids must be a flat list of integers: {error}") from error
        if tokens.ndim != 1:
            raise RequestError("input_ids must be a flat list of integers")
        bad = np.flatnonzero((tokens < 0) | (tokens >= self._vocab_size))
        if len(bad):
            at = int(bad[0])
            raise RequestError(
                f"input_ids[{at}] is {tokens[at]}, outside the vocabulary of {self._vocab_size} tokens"
            )
        return tokens

    def _check_length(self, prompt: int, new: int) -> int:
        limit = min(self._context_length, self._kv_slots)
        what = "context length" if limit == self._context_length else "KV pool"
        if prompt > limit or (prompt == limit and new > 0):
            raise PromptTooLongError(
                f"the prompt has {prompt} tokens; with room for an answer the {what} of {limit} allows {limit - 1}"
            )
        return min(prompt + new, limit)

    def _scores(self, source: GenerateRequest) -> Scores | None:
        length, params = source.prompt_length, source.logprobs
        if params is None:
            return None
        if params.start is not None and params.start > length:
            raise RequestError(
                f"logprob_start_len must be at most the prompt's length {length}, not {params.start}"
            )
        self._check_ids("token_ids_logprob", params.token_ids)
        if params.skip > (source.produced if params.start is None else 0):
            raise RequestError(
                f"logprobs of the output can be left out only for the {source.produced} tokens known"
            )
        prompt = [int(token) for token in source.input_ids[:length]]
        return Scores(params, prompt, self._text_of, no_output=source.params.max_new_tokens == 0)

    def _text_of(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)
