"""Our constraint engine behind the interface of the constraint races (../shared/bench/constraints/engines.py).

The races load this file by path and register every class under its `name`:

    SGL_LIKE_ADAPTER=examples/bench/constraint_adapter.py python maskbench_lite.py run sgl_like dev.txt

Each class is one configuration for all schemas. What the compiler refuses is an exception here, and a refusal there.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from engines import Engine, Matcher  # the races' own module: they are on the path when they load this file
from numpy.typing import NDArray

if importlib.util.find_spec("sgl_like") is None:  # the races' environment need not have the project installed
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from sgl_like.runtime.constrain import base
from sgl_like.runtime.constrain.compiler import CompiledFrames, CompiledGrammar, GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary


class SglLikeMatcher(Matcher):
    """One output, followed by one of our matchers; its mask goes into the engine's."""

    def __init__(self, matcher: base.Matcher, rows: NDArray[np.int32]) -> None:
        self.matcher = matcher
        self.rows = rows

    def fill_mask(self) -> None:
        """Write the mask of the next token into the engine's `mask`."""
        self.matcher.fill_mask(self.rows, 0)

    def accept(self, token: int) -> bool:
        """Advance by a token; False if it is not allowed."""
        return self.matcher.accept_token(token)

    def can_end(self) -> bool:
        """Whether the output may end here."""
        return self.matcher.is_complete

    def forced(self) -> bytes:
        """Bytes that must come next."""
        return self.matcher.forced_bytes()

    def forced_tokens(self) -> list[int]:
        """Tokens that must come next, tokenised as the benchmark's vocabulary does it."""
        return self.matcher.forced_tokens()


class SglLike(Engine):
    """The compliant configuration: property names in any order, whitespace wherever JSON allows it."""

    name, package = "sgl_like", "sgl-like"
    options: ClassVar[dict[str, Any]] = {"property_order": "any", "whitespace": "any"}

    def __init__(self, vocab: Any) -> None:
        super().__init__(vocab)
        # The mask is the races' own array, seen as the batch of one row that our matchers fill.
        self.rows = self.mask.view(np.int32)[None]
        pieces = [vocab.token_bytes(i) or None for i in range(vocab.size)]
        self.compiler = GrammarCompiler(Vocabulary(pieces, [vocab.eos], tokenize=vocab.encode))

    def compile(self, schema: Any) -> CompiledFrames:
        """A JSON Schema; raises what our compiler raises."""
        return self.compiler.compile_json_schema(schema, **self.options)

    def compile_regex(self, regex: str) -> CompiledGrammar:
        """A regex for the whole output."""
        return self.compiler.compile_regex(regex)

    def compile_ebnf(self, grammar: str) -> CompiledGrammar:
        """A grammar in GBNF or Lark syntax."""
        return self.compiler.compile_ebnf(grammar)

    def start(self, compiled: CompiledFrames | CompiledGrammar) -> SglLikeMatcher:
        """A matcher at the start of an output."""
        return SglLikeMatcher(compiled.matcher(), self.rows)

    def compiled_bytes(self, compiled: CompiledFrames | CompiledGrammar) -> int:
        """Bytes that a grammar holds at the moment."""
        return compiled.nbytes


class SglLikeDefault(SglLike):
    """What generation uses when nothing is asked for: no whitespace, properties in the order of the schema."""

    name = "sgl_like-default"
    separators = (",", ":")
    options: ClassVar[dict[str, Any]] = {}
