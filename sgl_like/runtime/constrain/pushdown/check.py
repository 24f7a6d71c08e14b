"""The one walk over a schema document before anything is compiled: is every keyword well-formed and enforceable?

It visits each schema that the root reaches, through applicators and references, once. What it finds out is kept for
`schema.Schema`: the keywords that really count, where that is not all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import ConstraintTooComplex, UnsupportedSchemaError
from sgl_like.runtime.constrain.pushdown.keywords import (
    IN_PLACE,
    KEYWORDS,
    NOTHING,
    REFERENCE,
    SCHEMAS,
    VALUES,
    Keyword,
    at,
    json_depth,
    within,
)
from sgl_like.runtime.constrain.pushdown.references import References

__all__ = ["Check", "Refuse", "Unsupported"]

Refuse = Callable[[str, Any], str | None]
"""Whether the value of a keyword cannot be enforced, and why: asked for ``pattern`` and ``format``."""
Unsupported = Callable[[str, str, str], None]
"""Notes that a keyword, at a pointer, cannot be enforced for a reason."""

_EXCLUSIVE = (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum"))


class Check:
    """Checks a document; see the attributes for the result.

    Args:
        root: the document.
        references: its references.
        max_depth: how deep schemas, and constants, may nest.
        unsupported: told of what cannot be enforced, which is then left out; None: that is an error. The
            constraint then allows more than the schema, never less: what would turn it into less, like a ``not``
            around it, is left out with it.
        refuse: what else cannot be enforced.

    Attributes:
        counting: by JSON pointer, the keywords that count of a schema, where that is not simply all of them.
        overlapping: pointers of schemas of whose ``oneOf`` several branches may be true.
        weak: pointers of schemas in which, at any depth, something was left out.
    """

    def __init__(
        self,
        root: Any,
        references: References,
        max_depth: int,
        unsupported: Unsupported | None,
        refuse: Refuse | None,
    ) -> None:
        self.counting: dict[str, dict[str, Any]] = {}
        self.overlapping: set[str] = set()
        self.weak: set[str] = set()
        self._references = references
        self._max_depth = max_depth
        self._unsupported = unsupported
        self._refuse = refuse
        self._links: dict[str, list[tuple[str, bool]]] = {}  # schema -> those that apply it; whether in place
        self._raws: dict[str, Mapping[str, Any]] = {}
        # schema, pointer, URI of the resource around it, depth
        self._todo: list[tuple[Any, str, str, int]] = [(root, "", "", 0)]
        self._walk()
        if self.weak:
            self._weaken()

    def has(self, keyword: str, value: Any) -> bool:
        """Whether some schema has this value of a keyword."""
        return any(raw.get(keyword) is value for raw in self._raws.values())

    def _walk(self) -> None:
        references, raws = self._references, self._raws
        for raw, pointer, base, depth in self._todo:
            if isinstance(raw, bool) or pointer in raws:
                continue
            raws[pointer] = raw
            if depth > self._max_depth:
                raise ConstraintTooComplex(
                    f"the schema at {pointer[:80]}... is more than {self._max_depth} levels deep"
                )
            uri = references.enter(raw, pointer, base)
            dialect = references.dialect(uri)
            if dialect.ref_hides and "$ref" in raw and len(raw) > 1:
                raw = {"$ref": raw["$ref"]}
                self.counting[pointer] = dict(raw)
            keywords = dialect.keywords
            for name, value in raw.items():
                keyword = keywords.get(name)
                if keyword is None:
                    if name in KEYWORDS:
                        self._count(pointer).pop(name)
                    continue
                if not keyword.is_valid(value):
                    raise UnsupportedSchemaError(name, at(pointer, name), keyword.rule)
                if keyword.holds != NOTHING:
                    self._enter(keyword, value, pointer, uri, depth)
                elif self._refuse is not None and name in ("pattern", "format"):
                    self._try(name, value, pointer)
            if "exclusiveMinimum" in raw or "exclusiveMaximum" in raw:
                self._modernise(raw, pointer)

    def _enter(self, keyword: Keyword, value: Any, pointer: str, uri: str, depth: int) -> None:
        """Go on with the schemas in the value of a keyword."""
        name = keyword.name
        if keyword.holds == VALUES:
            self._check_values(name, value, pointer)
            return
        if keyword.holds == REFERENCE:
            found = self._references.candidates(name, value, uri)
            if isinstance(found, str):
                self._drop(name, at(pointer, name), found, pointer)
                return
            for place in found:
                self._todo.append((*place, 0))
                self._link(place.pointer, pointer, in_place=True)
            return
        if name == "patternProperties" and self._refuse is not None:
            for pattern in value:
                self._try(name, pattern, pointer)
        inner = within(value, f"{pointer}/{name}", keyword.holds)
        self._todo.extend([(each, where, uri, depth + 1) for each, where in inner])
        if self._unsupported is not None:
            for _, where in inner:
                self._link(where, pointer, in_place=name in IN_PLACE)

    def _link(self, part: str, whole: str, in_place: bool) -> None:
        self._links.setdefault(part, []).append((whole, in_place))

    def _check_values(self, name: str, value: Any, pointer: str) -> None:
        depth = json_depth(value)
        if depth < 0:
            raise UnsupportedSchemaError(name, at(pointer, name), "has a value that is not JSON")
        if depth > self._max_depth + 1:
            raise ConstraintTooComplex(
                f"{name} at {at(pointer, name)} is more than {self._max_depth} levels deep"
            )

    def _modernise(self, raw: Mapping[str, Any], pointer: str) -> None:
        """Exclusive bounds that are booleans (draft 4) as numbers."""
        for exclusive, inclusive in _EXCLUSIVE:
            flag = raw.get(exclusive)
            if isinstance(flag, bool):
                counting = self._count(pointer)
                del counting[exclusive]
                if flag and inclusive in raw:
                    counting[exclusive] = counting.pop(inclusive)

    def _count(self, pointer: str) -> dict[str, Any]:
        if pointer not in self.counting:
            self.counting[pointer] = dict(self._raws[pointer])
        return self.counting[pointer]

    # -- what cannot be enforced -------------------------------------------------------------------------------------

    def _try(self, name: str, value: Any, pointer: str) -> None:
        assert self._refuse is not None
        reason = self._refuse(name, value)
        if reason is not None:
            steps = (name,) if name != "patternProperties" else (name, value)
            self._drop(name, at(pointer, *steps), reason, pointer)

    def _drop(self, name: str, where: str, reason: str, pointer: str) -> None:
        """Leave out a keyword of the schema at `pointer`, if that is allowed."""
        if self._unsupported is None:
            raise UnsupportedSchemaError(name, where, reason)
        self._unsupported(name, where, reason)
        self.weak.add(pointer)
        counting = self._count(pointer)
        value = counting.pop(name, None)
        if name == "patternProperties":
            counting[name] = {each: sub for each, sub in value.items() if at(pointer, name, each) != where}
            if counting.pop("additionalProperties", None) is not None:
                other = "additionalProperties"
                self._unsupported(other, at(pointer, other), "would apply to more names without a pattern")

    def _weaken(self) -> None:
        """Mark all schemas around those where something was left out, and leave out what that would tighten."""
        origins = self.weak
        self.weak = self._around(origins, only_in_place=False)
        # A condition that goes takes with it what `then` and `else` evaluate.
        conditional = {each for each in self.weak if "if" in self._raws[each] and at(each, "if") in self.weak}
        in_place = self._around(origins | conditional, only_in_place=True)
        for pointer in self._raws:
            if pointer in self.weak:
                self._loosen(pointer, pointer in in_place)

    def _around(self, pointers: set[str], only_in_place: bool) -> set[str]:
        """These schemas and all that apply them, directly or not."""
        found = set(pointers)
        todo = list(pointers)
        for part in todo:
            for whole, is_in_place in self._links.get(part, ()):
                if whole not in found and (is_in_place or not only_in_place):
                    found.add(whole)
                    todo.append(whole)
        return found

    def _loosen(self, pointer: str, in_place: bool) -> None:
        assert self._unsupported is not None
        raw = self.counting.get(pointer, self._raws[pointer])
        tight = [name for name in ("not", "if") if name in raw and at(pointer, name) in self.weak]
        if "oneOf" in raw and self._any_weak("oneOf", raw, pointer):
            tight.append("oneOf")
        if "contains" in raw and "maxContains" in raw and at(pointer, "contains") in self.weak:
            tight.append("maxContains")
        if in_place:
            tight += [name for name in ("unevaluatedProperties", "unevaluatedItems") if name in raw]
        for name in tight:
            self._unsupported(name, at(pointer, name), "depends on something that cannot be enforced")
            if name == "oneOf":
                self.overlapping.add(pointer)
            else:
                del self._count(pointer)[name]

    def _any_weak(self, name: str, raw: Mapping[str, Any], pointer: str) -> bool:
        return any(where in self.weak for _, where in within(raw[name], at(pointer, name), SCHEMAS))
