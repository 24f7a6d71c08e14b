"""Where constraints come in: a regex, JSON Schema, grammar, structural tag or choices become a `CompiledGrammar`."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from time import perf_counter
from typing import Any, Literal, TypeVar, cast

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain.automaton import Automaton
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.expr import EMPTY, Node, Pool
from sgl_like.runtime.constrain.grammar import IGNORE_BYTES
from sgl_like.runtime.constrain.json_source import load_schema
from sgl_like.runtime.constrain.masks import MaskCache
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.constrain.pushdown.compile import CompiledFrames, JsonCompiler
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.pushdown.values import Start
from sgl_like.runtime.constrain.regex import regex_to_expr
from sgl_like.runtime.constrain.structural import compile_tag, load_structural_tag
from sgl_like.runtime.constrain.vocabulary import Vocabulary

__all__ = ["CompiledFrames", "CompiledGrammar", "Grammar", "GrammarCompiler", "PropertyOrder", "Whitespace"]

PropertyOrder = Literal["schema", "any"]
Whitespace = Literal["compact", "any"]


class CompiledGrammar:
    """A regex, grammar or list of choices for one vocabulary. Thread-safe; all its matchers share what they learn."""

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


_WEIGHED_EVERY = 16
_LEAST_WEIGHED = 16 << 20
Grammar = CompiledGrammar | CompiledFrames
"""What a constraint becomes, by either engine."""
T = TypeVar("T")
G = TypeVar("G", CompiledGrammar, CompiledFrames)


class GrammarCompiler:
    """Compiles constraints for one vocabulary, and keeps those used last. Thread-safe. `took` is called with the
    seconds that each one took, by one thread at a time.

    Compiling builds an expression, which takes about a millisecond; automaton and masks follow on demand.
    Every `compile_*` raises `ConstraintError` if the constraint is malformed or nothing can satisfy it, and
    `ConstraintTooComplex` if it goes over `limits`.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        limits: Limits | None = None,
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self.vocabulary = vocab
        self.compiled = 0
        self.found = 0  # were compiled before
        self.refused = 0
        self._took = took
        self.limits = limits or Limits()
        self._lock = threading.Lock()
        self._grammars: OrderedDict[tuple[str | bytes, ...], Grammar] = OrderedDict()
        self._json = JsonCompiler(vocab, self.limits)
        self._added = 0

    @property
    def nbytes(self) -> int:
        """Approximate bytes of memory held by all constraints that are kept, and by what was found out about them."""
        with self._lock:
            grammars = list(self._grammars.values())
        return sum(grammar.nbytes for grammar in grammars) + self._json.nbytes

    def compile_regex(self, pattern: str) -> CompiledGrammar:
        """Outputs for which ``re.fullmatch(pattern, output)`` matches. Errors: see `regex.regex_to_expr`."""
        _check_text(pattern, "a regex")
        return self._compile(("regex", pattern), "the regex", lambda pool: regex_to_expr(pool, pattern))

    def compile_json_schema(
        self,
        schema: Any,
        property_order: PropertyOrder = "schema",
        separators: tuple[str, str] = (",", ":"),
        whitespace: Whitespace = "compact",
        lenient: bool = False,
    ) -> CompiledFrames:
        """Outputs that are JSON and valid under `schema` (draft 2020-12, draft 7, or what its ``$schema`` says).

        Args:
            schema: a mapping, a bool, JSON text, or a pydantic model class.
            property_order: ``"schema"``: declared properties in the order of the schema, optional ones may be left out,
                undeclared ones last; ``"any"``: in any order.
            separators: with ``whitespace="compact"``, what stands between members and after names: ``,`` and ``:``,
                each with at most one space after it.
            whitespace: ``"compact"``: none but in the separators; ``"any"``: up to `Limits.max_whitespace` characters
                wherever JSON allows it.
            lenient: drop assertions that cannot be enforced, and list them in `CompiledFrames.dropped`.

        Raises:
            UnsupportedSchemaError: a keyword cannot be enforced; it names the keyword and its JSON pointer.
        """
        loaded = load_schema(schema)
        text = _dump(loaded, "the JSON schema")
        style = self._style(property_order, separators, whitespace)

        def build() -> CompiledFrames:
            compiled = self._json.compile(loaded, style, lenient)
            grammar = compiled.grammar()
            value = grammar.machine.frames(grammar.start)[1]  # above the root
            if isinstance(value, Start) and not value.alive:
                raise ConstraintError("the JSON schema allows no output at all")
            return compiled

        return self._remember(("json_schema", text, str(lenient), repr(style)), "the JSON schema", build)

    def _style(self, property_order: str, separators: tuple[str, str], whitespace: str) -> Style:
        if property_order not in ("schema", "any"):
            raise ConstraintError(f"property_order is 'schema' or 'any', not {property_order!r}")
        if whitespace not in ("compact", "any"):
            raise ConstraintError(f"whitespace is 'compact' or 'any', not {whitespace!r}")
        if tuple(separators) not in ((",", ":"), (", ", ": "), (",", ": "), (", ", ":")):
            raise ConstraintError(
                f"separators are ',' and ':', each with at most one space after it: {separators!r}"
            )
        if whitespace == "any":
            return Style(self.limits.max_whitespace, any_order=property_order == "any")
        comma, colon = separators
        return Style(0, len(comma) - 1, len(colon) - 1, any_order=property_order == "any")

    def compile_ebnf(self, grammar: str) -> CompiledGrammar:
        """Outputs of a grammar in GBNF, if some line begins with ``name ::=``, or else in Lark syntax."""
        _check_text(grammar, "a grammar")
        from sgl_like.runtime.constrain.gbnf import is_gbnf

        return self.compile_gbnf(grammar) if is_gbnf(grammar) else self.compile_lark(grammar)

    def compile_gbnf(self, grammar: str, start: str = "root") -> CompiledGrammar:
        """Outputs of rule `start` of a grammar in GBNF. Syntax and errors: see `gbnf.gbnf_to_expr`."""
        from sgl_like.runtime.constrain.gbnf import (
            gbnf_to_expr,
        )  # when it is needed, for the sake of lark's 3 MB

        _check_text(grammar, "a grammar")
        return self._compile(
            ("gbnf", grammar, start), "the grammar", lambda pool: gbnf_to_expr(pool, grammar, start)
        )

    def compile_lark(
        self, grammar: str, start: str = "start", ignore_bytes: int | None = IGNORE_BYTES
    ) -> CompiledGrammar:
        """Outputs of rule `start` of a grammar in Lark syntax. What that means, and errors: see `lark_grammar`.

        Args:
            grammar: its text.
            start: the rule to begin with.
            ignore_bytes: how many bytes that ``%ignore`` matches may come in a row; None: any number.
        """
        from sgl_like.runtime.constrain.lark_grammar import lark_to_expr

        _check_text(grammar, "a grammar")
        return self._compile(
            ("lark", grammar, start, str(ignore_bytes)),
            "the grammar",
            lambda pool: lark_to_expr(pool, grammar, start, ignore_bytes),
        )

    def compile_structural_tag(
        self,
        tag: Any,
        property_order: PropertyOrder = "schema",
        separators: tuple[str, str] = (",", ":"),
        whitespace: Whitespace = "compact",
    ) -> CompiledFrames:
        """Free text with constrained parts. Form and errors: see `structural`.

        Args:
            tag: a mapping or JSON text.
            property_order: of all its schemas, as for `compile_json_schema`.
            separators: as for `compile_json_schema`.
            whitespace: as for `compile_json_schema`.
        """
        loaded = load_structural_tag(tag)
        text = _dump(loaded, "the structural tag")
        style = self._style(property_order, separators, whitespace)
        return self._remember(
            ("structural_tag", text, repr(style)),
            "the structural tag",
            lambda: compile_tag(self._json, loaded, style),
        )

    def compile_choices(self, choices: Sequence[str]) -> CompiledGrammar:
        """Outputs that are one of `choices`."""
        if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
            raise ConstraintError("choices are a list of strings")
        try:
            encoded = [choice.encode() for choice in choices]
        except UnicodeEncodeError as error:
            raise ConstraintError(f"a choice is not valid Unicode: {error}") from None
        return self._compile(("choices", *encoded), "the list of choices", lambda pool: pool.strings(encoded))

    def in_background(self, compile: Callable[..., T], *args: Any, **options: Any) -> Future[T]:
        """Compile without waiting, in a thread: ``compiler.in_background(compiler.compile_regex, "a+")``."""
        return _threads().submit(compile, *args, **options)

    def _compile(
        self, key: tuple[str | bytes, ...], name: str, convert: Callable[[Pool], Node]
    ) -> CompiledGrammar:
        def build() -> CompiledGrammar:
            pool = Pool(self.limits)
            pool.start_clock(self.limits.max_seconds)
            begin = convert(pool)
            pool.stop_clock()
            if begin is EMPTY:
                raise ConstraintError(f"{name} allows no output at all")
            pool.forget()
            return CompiledGrammar(Automaton(pool, begin, self.vocabulary))

        return self._remember(key, name, build)

    def _remember(self, key: tuple[str | bytes, ...], name: str, build: Callable[[], G]) -> G:
        """The grammar of this key, which says all about it: built now, or before."""
        with self._lock:
            found = self._grammars.get(key)
            if found is not None:
                self.found += 1
                self._grammars.move_to_end(key)
                return cast("G", found)
        began = perf_counter()
        try:
            grammar = self._built(key, name, build)
        except ConstraintError:
            with self._lock:
                self.refused += 1
            raise
        with self._lock:
            self.compiled += 1
            self._took(perf_counter() - began)
            kept = cast("G", self._grammars.setdefault(key, grammar))  # another thread may have been faster
            self._evict()
        return kept

    def _built(self, key: tuple[str | bytes, ...], name: str, build: Callable[[], G]) -> G:
        size = sum(len(part) for part in key)
        if size > self.limits.max_source:
            raise ConstraintTooComplex(f"{name} has {size} characters; the limit is {self.limits.max_source}")
        try:
            return build()
        except RecursionError:
            raise ConstraintTooComplex(f"{name} is nested too deeply") from None

    def _evict(self) -> None:
        """Drop the grammars used least recently, but never the newest, until the others fit."""
        while len(self._grammars) > max(self.limits.max_grammars, 1):
            self._grammars.popitem(last=False)
        self._added += 1
        if self._added % _WEIGHED_EVERY and self.limits.max_cache_bytes >= _LEAST_WEIGHED:
            return  # asking all of them how large they are takes longer than compiling one
        total = sum(grammar.nbytes for grammar in self._grammars.values())
        while len(self._grammars) > 1 and total > self.limits.max_cache_bytes:
            total -= self._grammars.popitem(last=False)[1].nbytes


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="sgl-like-compile")


def _dump(value: Any, name: str) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"{name} has a value that is not JSON: {error}") from None


def _check_text(value: Any, name: str) -> None:
    if not isinstance(value, str):
        raise ConstraintError(f"{name} is a string, not {type(value).__name__}")
