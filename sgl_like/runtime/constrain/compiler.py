"""Where constraints come in: from a regex, a JSON Schema or a list of choices to a `CompiledGrammar`."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.automaton import Automaton
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.json_schema import PropertyOrder, SchemaConverter, load_schema
from sgl_like.runtime.constrain.masks import MaskCache
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.constrain.regex import regex_to_expr
from sgl_like.runtime.constrain.vocabulary import Vocabulary

__all__ = ["CompiledGrammar", "GrammarCompiler"]


class CompiledGrammar:
    """A constraint for one vocabulary. Thread-safe; all its matchers share what they learn."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._masks = MaskCache(automaton)

    def matcher(self) -> AutomatonMatcher:
        """A matcher at the start of an output."""
        return AutomatonMatcher(self._automaton, self._masks)

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held; grows with use, within `Limits`."""
        return self._automaton.nbytes + self._masks.nbytes

    @property
    def states(self) -> int:
        """Automaton states known at the moment."""
        return self._automaton.states


class GrammarCompiler:
    """Compiles constraints for one vocabulary, and keeps those used last. Thread-safe.

    Compiling builds an expression, which takes about a millisecond; automaton and masks follow on demand.
    Every `compile_*` raises `ConstraintError` if the constraint is malformed or nothing can satisfy it, and
    `ConstraintTooComplex` if it goes over `limits`.
    """

    def __init__(self, vocab: Vocabulary, limits: Limits | None = None) -> None:
        self.vocabulary = vocab
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._grammars: OrderedDict[tuple[Any, ...], CompiledGrammar] = OrderedDict()

    def compile_regex(self, pattern: str) -> CompiledGrammar:
        """Outputs for which ``re.fullmatch(pattern, output)`` matches. Errors: see `regex.regex_to_expr`."""
        if not isinstance(pattern, str):
            raise ConstraintError(f"a regex is a string, not {type(pattern).__name__}")
        return self._compile(("regex", pattern), "the regex", lambda pool: regex_to_expr(pool, pattern))

    def compile_json_schema(
        self,
        schema: Any,
        property_order: PropertyOrder = "schema",
        separators: tuple[str, str] = (",", ":"),
    ) -> CompiledGrammar:
        """Outputs that are JSON and valid under `schema`.

        Args:
            schema: a mapping, a bool, JSON text, or a pydantic model class.
            property_order: ``"schema"`` or ``"any"``, see `json_schema.SchemaConverter`.
            separators: between members and after names; each with at most one space.

        Raises:
            UnsupportedSchemaError: a keyword cannot be enforced; it names the keyword and its JSON pointer.
        """
        loaded = load_schema(schema)
        try:
            text = json.dumps(loaded)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema has a value that is not JSON: {error}") from None

        def convert(pool: Pool) -> Node:
            return SchemaConverter(pool, loaded, property_order, separators).convert(loaded)

        return self._compile(("json_schema", text, property_order, *separators), "the JSON schema", convert)

    def compile_choices(self, choices: Sequence[str]) -> CompiledGrammar:
        """Outputs that are one of `choices`."""
        if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
            raise ConstraintError("choices are a list of strings")
        try:
            encoded = [choice.encode() for choice in choices]
        except UnicodeEncodeError as error:
            raise ConstraintError(f"a choice is not valid Unicode: {error}") from None
        return self._compile(("choices", *encoded), "the list of choices", lambda pool: pool.strings(encoded))

    def _compile(self, key: tuple[Any, ...], name: str, convert: Callable[[Pool], Node]) -> CompiledGrammar:
        with self._lock:
            found = self._grammars.get(key)
            if found is not None:
                self._grammars.move_to_end(key)
                return found
        size = sum(len(part) for part in key)
        if size > self.limits.max_source:
            raise ConstraintTooComplex(f"{name} has {size} characters; the limit is {self.limits.max_source}")
        pool = Pool(self.limits)
        try:
            start = convert(pool)
        except RecursionError:
            raise ConstraintTooComplex(f"{name} is nested too deeply") from None
        if start is EMPTY:
            raise ConstraintError(f"{name} allows no output at all")
        pool.forget()
        grammar = CompiledGrammar(Automaton(pool, start, self.vocabulary))
        with self._lock:
            grammar = self._grammars.setdefault(key, grammar)  # another thread may have been faster
            self._evict()
        return grammar

    def _evict(self) -> None:
        """Drop the grammars used least recently, but never the newest, until the others fit."""
        total = sum(grammar.nbytes for grammar in self._grammars.values())
        while len(self._grammars) > 1 and (
            len(self._grammars) > self.limits.max_grammars or total > self.limits.max_cache_bytes
        ):
            total -= self._grammars.popitem(last=False)[1].nbytes
