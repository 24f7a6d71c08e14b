"""Where the references of a schema document lead: identifiers, anchors, JSON pointers, and the dynamic scope.

A document is made of resources: its root, and every schema in it with an identifier of its own. Anchors belong to a
resource, and JSON pointers start at its root. Most documents only have references like ``#/$defs/name``; the whole
document is searched for identifiers when the first reference of another kind is met.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin

from sgl_like.runtime.constrain.pushdown.keywords import (
    DEFINITIONS,
    LATEST,
    NAMED,
    SCHEMAS,
    Dialect,
    at,
    dialect_of,
    is_schema,
    within,
)

__all__ = ["Place", "References", "Scope"]

# Which resource of those entered so far was the first to have a dynamic anchor: (name, URI), in order of entering.
# Names that only one resource has are left out, so that it stays empty in ordinary documents.
Scope = tuple[tuple[str, str], ...]


_INDEX = re.compile("0|[1-9][0-9]{0,9}")


class Place(NamedTuple):
    """A schema in the document.

    Args:
        raw: the schema.
        pointer: JSON pointer to it from the root of the document.
        base: URI of the resource around it; its own identifier, if it has one, is relative to that.
    """

    raw: Any
    pointer: str
    base: str


class References:
    """Resources and anchors of a document."""

    def __init__(self, root: Any) -> None:
        self._root = Place(root, "", "")
        self._resources = {"": self._root}  # by URI
        self._resource_at: dict[str, str] = {}  # pointer of a schema with an identifier -> URI
        self._dialects = {"": dialect_of(root, LATEST) if isinstance(root, Mapping) else LATEST}
        self._anchors: dict[tuple[str, str], Place] = {}  # by URI and name
        self._dynamic: dict[str, dict[str, Place]] = {}  # by name and URI; "" is ``$recursiveAnchor``
        self._ambiguous: dict[str, list[str]] = {}  # URI -> dynamic anchors that other resources have too
        self._found: dict[tuple[str, str], Place | str] = {}
        self._indexed = False

    def dialect(self, uri: str) -> Dialect:
        """The dialect of a resource."""
        return self._dialects[uri]

    def enter(self, raw: Mapping[str, Any], pointer: str, base: str) -> str:
        """URI of the resource that a schema belongs to: its own, or else the one around it."""
        dialect = self._dialects[base]
        own = dialect_of(raw, dialect) if "$schema" in raw else dialect
        identifier = raw.get(own.identifier)
        if not isinstance(identifier, str) or identifier.startswith("#") or (own.ref_hides and "$ref" in raw):
            return base
        uri = _join(base, identifier).partition("#")[0]
        self._resources.setdefault(uri, Place(raw, pointer, base))
        self._dialects.setdefault(uri, own)
        self._resource_at[pointer] = uri
        return uri

    def find(self, reference: str, base: str) -> Place | str:
        """Where a reference from a resource leads, without regard to dynamic anchors; or why it leads nowhere."""
        found = self._found.get((reference, base))
        if found is None:
            found = self._found[reference, base] = self._find(reference, base)
        return found

    def candidates(self, keyword: str, reference: str, base: str) -> list[Place] | str:
        """Where a reference may lead in any dynamic scope; or why it leads nowhere."""
        if keyword != "$ref":
            self._index()
        found = self.find(reference, base)
        if isinstance(found, str):
            return found
        return [found, *self._anchored(keyword, reference, base).values()]

    def find_in(self, scope: Scope, keyword: str, reference: str, base: str) -> Place | str:
        """Where a reference leads in a dynamic scope."""
        anchored = self._anchored(keyword, reference, base)
        if anchored:
            name = _fragment(reference)
            for each, uri in scope:
                if each == name:
                    return anchored[uri]
        return self.find(reference, base)

    def enter_scope(self, scope: Scope, uri: str) -> Scope:
        """The dynamic scope within a schema of this resource."""
        if uri in self._ambiguous:
            known = [name for name, _ in scope]
            scope += tuple((name, uri) for name in self._ambiguous[uri] if name not in known)
        return scope

    def _anchored(self, keyword: str, reference: str, base: str) -> dict[str, Place]:
        """The dynamic anchors, by resource, between which the scope decides; empty if it does not matter."""
        if keyword == "$ref":
            return {}
        uri, _, fragment = _join(base, reference).partition("#")
        places = self._dynamic.get(unquote(fragment), {})
        return places if uri in places else {}

    def _find(self, reference: str, base: str) -> Place | str:
        uri, _, fragment = _join(base, reference).partition("#")
        fragment = unquote(fragment)
        is_pointer = not fragment or fragment.startswith("/")
        if uri not in self._resources or not is_pointer:
            self._index()
        start = self._resources.get(uri)
        if start is None:
            return f"points to {reference!r}, which is not in the document"
        place = self._follow(start, fragment) if is_pointer else self._anchors.get((uri, fragment))
        if place is None:
            return f"points to {reference!r}, which does not exist in the document"
        if not is_schema(place.raw):
            return f"points to {reference!r}, which is not a schema"
        return place

    def _follow(self, start: Place, fragment: str) -> Place | None:
        raw, pointer, base = start
        for step in fragment.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(raw, Mapping):
                if "$id" in raw or "id" in raw:
                    self._index()
                    base = self._resource_at.get(pointer, base)
                if name not in raw:
                    return None
                raw = raw[name]
            elif isinstance(raw, list) and _INDEX.fullmatch(name) and int(name) < len(raw):
                raw = raw[int(name)]
            else:
                return None
            pointer = at(pointer, name)
        return Place(raw, pointer, base)

    def _index(self) -> None:
        """Note the identifiers and anchors of all schemas, whether something refers to them or not."""
        if self._indexed:
            return
        self._indexed = True
        todo = [self._root]
        for place in todo:
            raw, pointer, base = place
            if not isinstance(raw, Mapping):
                continue
            uri = self.enter(raw, pointer, base)
            dialect = self._dialects[uri]
            self._note_anchors(place, uri, dialect)
            for name, value in raw.items():
                keyword = dialect.keywords.get(name)
                holds = NAMED if name in DEFINITIONS else keyword.holds if keyword else 0
                if holds in (SCHEMAS, NAMED):
                    inner = within(value, f"{pointer}/{name}", holds)
                    todo.extend(Place(each, where, uri) for each, where in inner)
        for name, places in self._dynamic.items():
            if len(places) > 1:
                for uri in places:
                    self._ambiguous.setdefault(uri, []).append(name)

    def _note_anchors(self, place: Place, uri: str, dialect: Dialect) -> None:
        raw = place.raw
        identifier = raw.get(dialect.identifier)
        if isinstance(identifier, str) and identifier.startswith("#"):
            hidden = dialect.ref_hides and "$ref" in raw
            if not hidden and not identifier.startswith("#/"):
                self._anchors.setdefault((uri, identifier[1:]), place)
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = raw.get(keyword)
            if isinstance(name, str) and keyword in dialect.keywords:
                self._anchors.setdefault((uri, name), place)
                if keyword == "$dynamicAnchor":
                    self._dynamic.setdefault(name, {}).setdefault(uri, place)
        is_root = self._resources[uri].pointer == place.pointer
        if raw.get("$recursiveAnchor") is True and is_root and "$recursiveAnchor" in dialect.keywords:
            self._dynamic.setdefault("", {})[uri] = place


def _fragment(reference: str) -> str:
    return unquote(reference.partition("#")[2])


def _join(base: str, reference: str) -> str:
    """A reference relative to a base URI (RFC 3986), whatever the scheme."""
    if not reference or reference.startswith("#"):
        return base + reference
    scheme, separator, rest = base.partition("://")
    if separator and urljoin(base, reference) == reference and ":" not in reference.partition("/")[0]:
        # urljoin knows only some schemes to be hierarchical
        return scheme + urljoin("http://" + rest, reference).removeprefix("http")
    return urljoin(base, reference)
