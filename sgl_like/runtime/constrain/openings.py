"""How much may become missing at once: roughly the longest of the shortest texts of a constraint's parts.

A token that opens a member, an item or a group makes the shortest completion longer by what that needs at least.
Where a budget of tokens has to suffice, the completion must be watched from so far before its end on. An estimate is
enough: what it leaves out (patterns in schemas, `if`, dependent members, rules that grow exponentially) is rare, and
what is too much costs only time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["largest_opening", "longest_unrolled"]

_ANNOTATIONS = ("description", "title", "examples", "default", "$comment")
_LEAST = {"string": 2, "object": 2, "array": 2, "null": 4, "boolean": 4, "number": 1, "integer": 1}
_MOST = 1 << 20
_COUNTS = re.compile(r"[{~]\s*(\d{1,9})")  # how often something is repeated at least, in regexes and grammars


def largest_opening(schema: Any) -> int:
    """Bytes: the greatest, over all schemas within one (JSON values), of about the shortest text of each."""
    sizes = _Sizes(schema)
    return min(max((sizes.of(each) for each in _within(schema)), default=0), _MOST)


def longest_unrolled(source: str) -> int:
    """Bytes: no text that a regex needs at least is longer than its source with all that is counted written out."""
    times = math.prod(int(count) + 1 for count in _COUNTS.findall(source))
    return min(len(source.encode(errors="surrogatepass")) * times, _MOST)


class _Sizes:
    """Approximate lengths of shortest values, each schema looked at once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[int, int] = {}

    def of(self, schema: Any) -> int:
        """Bytes of about the shortest value of a schema; a schema within itself counts 0."""
        if not isinstance(schema, Mapping):
            return 1
        if id(schema) not in self._known:
            self._known[id(schema)] = 0
            self._known[id(schema)] = min(self._least(schema), _MOST)
        return self._known[id(schema)]

    def _least(self, schema: Mapping[str, Any]) -> int:
        if "const" in schema:
            return _length(schema["const"])
        if isinstance(schema.get("enum"), list):
            return min(map(_length, schema["enum"]), default=0)
        parts = [self._typed(schema)]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                parts.append(min(map(self.of, schema[key]), default=0))
        if isinstance(schema.get("allOf"), list):
            parts += map(self.of, schema["allOf"])
        if isinstance(schema.get("$ref"), str):
            parts.append(self.of(self._target(schema["$ref"])))
        return sum(parts)

    def _typed(self, schema: Mapping[str, Any]) -> int:
        types = schema.get("type", [])
        types = [types] if isinstance(types, str) else types
        return min((self._of_type(each, schema) for each in types), default=0)

    def _of_type(self, name: object, schema: Mapping[str, Any]) -> int:
        least = _LEAST.get(str(name), 0)
        if name == "string":
            return least + _count(schema, "minLength")
        if name == "array":
            first = schema.get("prefixItems")
            items = _count(schema, "minItems")
            return least + items * (1 + self.of(schema.get("items"))) + sum(map(self.of, first or ()))
        if name == "object":
            members = schema.get("properties")
            members = members if isinstance(members, Mapping) else {}
            required = schema.get("required")
            names = required if isinstance(required, list) else []
            declared = sum(
                _length(each) + 2 + self.of(members.get(each)) for each in names if isinstance(each, str)
            )
            return least + declared + 8 * _count(schema, "minProperties")
        return least

    def _target(self, pointer: str) -> Any:
        place = self._root
        for part in pointer.removeprefix("#").split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            place = place.get(part) if isinstance(place, Mapping) else None
        return place


def _within(value: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings in JSON values."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, Mapping):
            yield each
            waiting += [part for key, part in each.items() if key not in _ANNOTATIONS]
        elif isinstance(each, list):
            waiting += each


def _count(schema: Mapping[str, Any], key: str) -> int:
    value = schema.get(key, 0)
    return min(int(value), _MOST) if isinstance(value, int | float) and value > 0 else 0


def _length(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
