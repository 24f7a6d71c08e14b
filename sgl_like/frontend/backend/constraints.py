"""What can be said about a constraint before anything is generated: how short outputs can be, and what is in them.

With the bytes of a model's tokens the length of an output is counted in tokens; without, in bytes, of which there are
at least as many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, Literal, NamedTuple

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = ["ConstraintCheck", "Shortest"]

_NAMES = frozenset(field.name for field in fields(SamplingParams))


class Shortest(NamedTuple):
    """A shortest output, and how many tokens (or without a vocabulary, bytes) it takes at the least."""

    text: str
    length: int


class ConstraintCheck:
    """Compiles constraints over the tokens of a model, or over single bytes for ``None``."""

    def __init__(self, token_bytes: Sequence[bytes | None] | None) -> None:
        self._token_bytes = token_bytes
        self.unit = "bytes" if token_bytes is None else "tokens"

    def shortest(self, params: Mapping[str, Any]) -> Shortest | None:
        """Of the constraint in some sampling parameters; ``None`` if there is none, or it is too complex to tell.

        Raises:
            SamplingParamsError: a parameter is out of range.
            ConstraintError: the constraint cannot be compiled, or allows no output.
        """
        from sgl_like.runtime.constrain.spelling import fewest_tokens
        from sgl_like.runtime.engine.constraints import matcher_of

        checked = SamplingParams.from_dict({name: value for name, value in params.items() if name in _NAMES})
        if not checked.is_constrained:
            return None
        try:
            text = matcher_of(self._compiler, checked).shortest_completion()
        except ConstraintTooComplex:
            return None
        tokens = fewest_tokens(self._compiler.vocabulary.trie, text)
        return None if tokens is None else Shortest(text.decode(errors="replace"), len(tokens))

    def contains(self, regex: str, text: str) -> Literal["never", "always", "sometimes"]:
        """Whether outputs of a regex contain `text`."""
        if not self._possible(f"(?=(?s:.*){re.escape(text)})(?:{regex})"):
            return "never"
        return "sometimes" if self._possible(f"(?!(?s:.*){re.escape(text)})(?:{regex})") else "always"

    def _possible(self, regex: str) -> bool:
        """Whether anything matches; if that cannot be told (flags in the middle of a regex, say), it might."""
        try:
            self._compiler.compile_regex(regex).matcher().shortest_completion()
        except ConstraintError as error:
            return "allows no output" not in str(error)
        return True

    @cached_property
    def _compiler(self) -> Any:
        from sgl_like.runtime.constrain.compiler import GrammarCompiler
        from sgl_like.runtime.constrain.vocabulary import Vocabulary

        tokens = [bytes([byte]) for byte in range(256)] if self._token_bytes is None else self._token_bytes
        return GrammarCompiler(Vocabulary([*tokens, None], [len(tokens)]))
