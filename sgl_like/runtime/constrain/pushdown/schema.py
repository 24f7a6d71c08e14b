"""JSON Schema documents as formulas: each sub-schema becomes a formula over leaves, on demand.

A leaf holds what one schema object asserts itself, without what it applies in place (`allOf`, `anyOf`, `$ref`, ...),
which becomes the formula around it. The whole document is checked first (see `check`), so that what is wrong with it
is known before anything is generated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from sgl_like.errors import ConstraintError, ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.pushdown.check import Check, Refuse
from sgl_like.runtime.constrain.pushdown.formula import (
    FALSE,
    TRUE,
    Formula,
    Formulas,
    Leaf,
)
from sgl_like.runtime.constrain.pushdown.keywords import (
    ARRAY,
    NUMBER,
    OBJECT,
    OWN,
    STRING,
    TYPES,
    Dialect,
    at,
    is_schema,
)
from sgl_like.runtime.constrain.pushdown.references import References, Scope

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.pushdown.evaluators import Evaluator

__all__ = ["ARRAY", "NUMBER", "OBJECT", "OWN", "STRING", "Document", "Own", "Schema"]

_ALL_TYPES = frozenset(TYPES)
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


class Own(Leaf):
    """What a schema object asserts itself, before anything is known about the value."""

    __slots__ = ("schema",)
    schema: Schema


class Schema:
    """One sub-schema of a document, in one dynamic scope. Compare with ``is``.

    Attributes:
        raw: its keywords: without those that do not count, and in the form of the newest draft.
        pointer: JSON pointer to it in the document.
        base: URI of the resource that it belongs to.
        types: those that ``type`` allows.
        dialect: the draft that it is written in.
    """

    __slots__ = ("_entered", "_evaluators", "_formula", "base", "dialect", "document", "pointer", "raw", "scope",
                 "types")  # fmt: skip

    def __init__(
        self, document: Document, raw: Mapping[str, Any], pointer: str, base: str, scope: Scope
    ) -> None:
        self.document = document
        self.raw = raw
        self.pointer = pointer
        self.base = base
        self.scope = scope
        self.dialect: Dialect = document.references.dialect(base)
        names = raw.get("type")
        if names is None:
            self.types = _ALL_TYPES
        else:
            self.types = frozenset([names] if isinstance(names, str) else names)
        self._formula: Formula | None = None
        self._entered = False
        self._evaluators: dict[str, list[Evaluator]] = {}

    def formula(self) -> Formula:
        """The formula that stands for this schema.

        Raises:
            UnsupportedSchemaError: something in it cannot be enforced.
            ConstraintTooComplex: too many schemas apply in place within each other.
        """
        if self._formula is None:
            self._entered = True
            try:
                self._formula = self.document.formulas.all_of(self._parts())
            finally:
                self._entered = False
        return self._formula

    def sub(self, *steps: str | int) -> Formula:
        """The formula of a schema within this one."""
        return self.document.formula(self.at(*steps))

    def at(self, *steps: str | int) -> Schema | bool:
        """A schema within this one."""
        raw: Any = self.raw
        for step in steps:
            raw = raw[step]
        return self.document.find(raw, at(self.pointer, *steps), self.base, self.scope)

    def targets(self) -> Iterator[Schema | bool]:
        """The schemas that its references mean, in its dynamic scope.

        Raises:
            UnsupportedSchemaError: a reference comes back to this schema before anything was read.
        """
        document = self.document
        for keyword in _REFERENCES:
            if keyword in self.raw:
                place = document.references.find_in(self.scope, keyword, self.raw[keyword], self.base)
                assert not isinstance(place, str), "what leads nowhere is left out of `raw`"
                target = document.find(*place, self.scope)
                if isinstance(target, Schema) and target._entered:
                    reason = "comes back to itself without reading anything"
                    raise UnsupportedSchemaError(keyword, at(self.pointer, keyword), reason)
                yield target

    def dependent_schemas(self) -> Iterator[tuple[str, str]]:
        """Property names that bring a schema with them, and the keyword that says so."""
        for name in self.raw.get("dependentSchemas", ()):
            yield name, "dependentSchemas"
        for name, value in self.raw.get("dependencies", {}).items():
            if not isinstance(value, list):
                yield name, "dependencies"

    def dependent_required(self) -> dict[str, list[str]]:
        """Property names that others require."""
        out = dict(self.raw.get("dependentRequired", {}))
        for name, value in self.raw.get("dependencies", {}).items():
            if isinstance(value, list):
                out[name] = [*out.get(name, ()), *value]
        return out

    def has(self, name: str, keyword: str) -> Formula:
        """The formula of an object with this property; `keyword` asks."""
        raw = {"type": "object", "required": [name]}
        return self.document.keep(raw, at(self.pointer, keyword, name) + "#", self.base)

    def evaluators(self, kind: Literal["properties", "items"]) -> list[Evaluator]:
        """See `evaluators.evaluators`."""
        from sgl_like.runtime.constrain.pushdown.evaluators import evaluators

        if kind not in self._evaluators:
            self._evaluators[kind] = evaluators(self, kind)
        return self._evaluators[kind]

    def _parts(self) -> Iterator[Formula]:
        raw, f, document = self.raw, self.document.formulas, self.document
        for target in self.targets():
            yield document.formula(target)
        if not OWN.isdisjoint(raw):
            leaf = f.leaf((Own, id(self)), Own)
            assert isinstance(leaf, Own)
            leaf.schema = self
            yield leaf
        for i in range(len(raw.get("allOf", ()))):
            yield self.sub("allOf", i)
        if "anyOf" in raw:
            yield f.any_of([self.sub("anyOf", i) for i in range(len(raw["anyOf"]))])
        if "oneOf" in raw:
            options = [self.sub("oneOf", i) for i in range(len(raw["oneOf"]))]
            overlapping = self.pointer in document.check.overlapping
            yield f.any_of(options) if overlapping else f.exactly_one(options)
            tag = raw.get("discriminator")
            if isinstance(tag, Mapping) and isinstance(tag.get("propertyName"), str):
                # pydantic does not call a tag required that has a default, but wants it all the same
                yield self.has(tag["propertyName"], "discriminator")
        if "not" in raw:
            yield f.negate(self.sub("not"))
        if "if" in raw and ("then" in raw or "else" in raw):
            condition = self.sub("if")
            then = self.sub("then") if "then" in raw else TRUE
            other = self.sub("else") if "else" in raw else TRUE
            yield f.any_of([f.all_of([condition, then]), f.all_of([f.negate(condition), other])])
        for name, keyword in self.dependent_schemas():
            yield f.any_of([f.negate(self.has(name, keyword)), self.sub(keyword, name)])


class Document:
    """A schema document: its sub-schemas and references.

    Args:
        root: the schema: JSON as Python has it.
        formulas: makes its formulas.
        limits: `max_depth` bounds how deep schemas nest, and how many apply to one value within each other.
        lenient: leave out assertions that cannot be enforced, instead of raising. The constraint then allows more
            than the schema does, never less.
        refuse: says of a keyword and its value why it cannot be enforced (None: it can); asked for ``pattern``,
            each pattern of ``patternProperties``, and ``format``.

    Attributes:
        dropped: what was left out: keyword, JSON pointer, reason.

    Raises:
        UnsupportedSchemaError: a keyword is malformed (also if lenient), or cannot be enforced.
        ConstraintTooComplex: schemas nest too deep.
        ConstraintError: `root` is not a schema at all.
    """

    def __init__(
        self,
        root: Any,
        formulas: Formulas,
        limits: Limits | None = None,
        *,
        lenient: bool = False,
        refuse: Refuse | None = None,
    ) -> None:
        if not is_schema(root):
            raise ConstraintError(f"a JSON Schema must be an object or a boolean, not {type(root).__name__}")
        self.root = root
        self.formulas = formulas
        self.lenient = lenient
        self.dropped: list[tuple[str, str, str]] = []
        self.references = References(root)
        self._max_depth = (limits or Limits()).max_depth
        self._nesting = 0
        self._schemas: dict[tuple[str, Scope], Schema] = {}
        self._made: dict[str, Schema] = {}
        note = self.unsupported if lenient else None
        self.check = Check(root, self.references, self._max_depth, note, refuse)

    @property
    def unique(self) -> bool:
        """Whether items of some array have to be unique."""
        return self.check.has("uniqueItems", True)

    def unsupported(self, keyword: str, pointer: str, reason: str) -> None:
        """Note that a keyword is left out because it cannot be enforced; unless lenient, raise instead.

        Leaving out may only allow more: the caller sees to it that it is not within a ``not`` or the like.
        """
        if not self.lenient:
            raise UnsupportedSchemaError(keyword, pointer, reason)
        if all(known[:2] != (keyword, pointer) for known in self.dropped):
            self.dropped.append((keyword, pointer, reason))

    def schema(self, raw: Any, pointer: str, base: str, scope: Scope = ()) -> Formula:
        """The formula of a schema found at `pointer`, in a resource with the URI `base`."""
        return self.formula(self.find(raw, pointer, base, scope))

    def keep(self, raw: Mapping[str, Any], pointer: str, base: str) -> Formula:
        """The formula of a schema made here, without references; `pointer` is nobody else's."""
        found = self._made.get(pointer)
        if found is None:
            found = self._made[pointer] = Schema(self, raw, pointer, base, ())
        return found.formula()

    def find(self, raw: Any, pointer: str, base: str, scope: Scope = ()) -> Schema | bool:
        """The schema found at `pointer`, in a resource with the URI `base`; booleans are themselves."""
        if isinstance(raw, bool):
            return raw
        uri = self.references.enter(raw, pointer, base)
        key = (pointer, self.references.enter_scope(scope, uri))
        found = self._schemas.get(key)
        if found is None:
            counting = self.check.counting.get(pointer, raw)
            found = self._schemas[key] = Schema(self, counting, pointer, uri, key[1])
        return found

    def formula(self, schema: Schema | bool) -> Formula:
        """The formula of a schema."""
        if isinstance(schema, bool):
            return TRUE if schema else FALSE
        if schema._formula is not None:
            return schema._formula
        if self._nesting > self._max_depth:
            raise self._too_deep(schema)
        self._nesting += 1
        try:
            return schema.formula()
        except RecursionError:
            raise self._too_deep(schema) from None
        finally:
            self._nesting -= 1

    def _too_deep(self, schema: Schema) -> ConstraintTooComplex:
        return ConstraintTooComplex(
            f"more than {self._max_depth} levels of schemas apply to one value at {schema.pointer}"
        )
