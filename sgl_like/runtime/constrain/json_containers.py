"""JSON arrays and objects, without whitespace but the separators'."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgl_like.errors import UnsupportedSchemaError
from sgl_like.runtime.constrain.expr import EMPTY, EPSILON, MemberSpec, Node
from sgl_like.runtime.constrain.json_disjoint import possible_types
from sgl_like.runtime.constrain.json_keywords import Schema, at
from sgl_like.runtime.constrain.json_strings import encode_json

if TYPE_CHECKING:
    from sgl_like.runtime.constrain.json_schema import SchemaConverter

__all__ = ["array_of", "object_of"]


def array_of(converter: SchemaConverter, schema: Schema, pointer: str, anything: Node | None = None) -> Node:
    """An array: `prefixItems`, then `items`, `minItems` to `maxItems` in all.

    `anything` is an item that nothing is said about; None for any value.
    """
    pool, comma = converter.pool, converter.pool.literal(converter.comma.encode())
    low = int(schema.get("minItems", 0))
    high = int(schema["maxItems"]) if "maxItems" in schema else None
    first = [
        converter.convert(s, at(pointer, "prefixItems", i))
        for i, s in enumerate(schema.get("prefixItems", []))
    ]
    if high is not None and high <= len(first):
        others = EMPTY  # there are none
    elif "items" in schema:
        others = converter.convert(schema["items"], at(pointer, "items"))
    else:
        others = anything or converter.convert(True, pointer)

    def counted(done: int, item: Node) -> Node:
        return pool.repeat(item, max(low - done, 0), None if high is None else max(high - done, 0))

    if high is not None and high < low:
        return EMPTY
    if not first:
        first = [others]
    rest = counted(len(first), pool.concat(comma, others))  # what follows the items in `first`
    for i in range(len(first) - 1, -1, -1):
        if high is not None and i >= high:
            rest = EPSILON
            continue
        rest = pool.sequence(comma if i else EPSILON, first[i], rest)
        if i >= low:
            rest = pool.optional(rest)
    return pool.sequence(pool.literal(b"["), rest, pool.literal(b"]"))


def object_of(converter: SchemaConverter, schema: Schema, pointer: str, anything: Node | None = None) -> Node:
    """An object: `properties`, `required` and `additionalProperties`; without declared properties also
    `propertyNames`, one `patternProperties`, `maxProperties` and a `minProperties` of 0 or 1.

    `anything` is the value of a property that nothing is said about; None for any value.
    """
    declared = list(schema.get("properties", {}))
    required = list(dict.fromkeys(schema.get("required", [])))
    names = declared + [name for name in required if name not in schema.get("properties", {})]
    if names:
        members = _declared(converter, schema, pointer, names)
    else:
        members = _dictionary(converter, schema, pointer, anything)
    pool = converter.pool
    return pool.sequence(pool.literal(b"{"), members, pool.literal(b"}"))


def _declared(converter: SchemaConverter, schema: Schema, pointer: str, names: list[str]) -> Node:
    for keyword in ("patternProperties", "propertyNames", "minProperties", "maxProperties"):
        if keyword in schema:
            reason = "is not supported for an object with declared properties"
            raise UnsupportedSchemaError(keyword, at(pointer, keyword), reason)
    keys: list[bytes] = []
    values: list[Node] = []
    required = 0
    for name in names:
        if name in schema.get("properties", {}):
            value = converter.convert(schema["properties"][name], at(pointer, "properties", name))
        else:
            value = converter.convert(
                schema.get("additionalProperties", True), at(pointer, "additionalProperties")
            )
        if name in schema.get("required", []):
            if value is EMPTY:
                return EMPTY
            required |= 1 << len(keys)
        elif value is EMPTY:
            continue
        keys.append(_name(converter, name, pointer) + converter.colon.encode())
        values.append(value)
    extra = (
        _undeclared(converter, schema, pointer, names, None) if "additionalProperties" in schema else EMPTY
    )
    spec = MemberSpec(
        keys=tuple(keys),
        values=tuple(values),
        required=required,
        comma=converter.comma.encode(),
        any_order=converter.any_order,
        extra=None if extra is EMPTY else extra,
    )
    return converter.pool.members(spec, (1 << len(keys)) - 1, True)


def _dictionary(converter: SchemaConverter, schema: Schema, pointer: str, anything: Node | None) -> Node:
    """The members of an object that has no declared properties."""
    pool = converter.pool
    low, most = int(schema.get("minProperties", 0)), schema.get("maxProperties")
    if low > 1:  # a name can be written twice, so that counting members does not do
        raise UnsupportedSchemaError(
            "minProperties", at(pointer, "minProperties"), "is supported up to 1 only"
        )
    if "patternProperties" in schema:
        member = _patterned(converter, schema, pointer)
    else:
        member = _undeclared(converter, schema, pointer, [], anything)
    if most is not None and most < low:
        return EMPTY
    if most == 0:
        return EPSILON
    comma = pool.literal(converter.comma.encode())
    more = pool.repeat(pool.concat(comma, member), 0, None if most is None else int(most) - 1)
    members = pool.concat(member, more)
    return members if low else pool.optional(members)


def _patterned(converter: SchemaConverter, schema: Schema, pointer: str) -> Node:
    """A property whose name matches the one pattern of ``patternProperties``; there are no others."""
    where = at(pointer, "patternProperties")
    if (
        len(schema["patternProperties"]) != 1
        or schema.get("additionalProperties", False)
        or "propertyNames" in schema
    ):
        reason = "is supported with a single pattern, without additionalProperties and propertyNames, only"
        raise UnsupportedSchemaError("patternProperties", where, reason)
    ((pattern, values),) = schema["patternProperties"].items()
    value = converter.convert(values, at(where, pattern))
    name = converter.strings.from_schema({"pattern": pattern}, where)
    return converter.pool.sequence(name, converter.pool.literal(converter.colon.encode()), value)


def _undeclared(
    converter: SchemaConverter, schema: Schema, pointer: str, declared: list[str], anything: Node | None
) -> Node:
    """A property that is not declared, with its name; `EMPTY` if there may be none."""
    pool = converter.pool
    if "additionalProperties" in schema or anything is None:
        value = converter.convert(
            schema.get("additionalProperties", True), at(pointer, "additionalProperties")
        )
    else:
        value = anything
    allowed = None
    if "propertyNames" in schema:
        allowed = _allowed_names(converter, schema["propertyNames"], at(pointer, "propertyNames"))
    name = converter.strings.undeclared_name([_name(converter, n, pointer) for n in declared], allowed)
    return pool.sequence(name, pool.literal(converter.colon.encode()), value)


def _allowed_names(converter: SchemaConverter, schema: Schema | bool, pointer: str) -> Node | None:
    """The names that ``propertyNames`` allows; None for all."""
    if isinstance(schema, bool):
        return None if schema else EMPTY
    if "type" not in schema:
        schema = {"type": "string", **schema}
    names = converter.convert(schema, pointer)
    if not possible_types(schema, converter.resolve, pointer) <= {"string"}:
        raise UnsupportedSchemaError("propertyNames", pointer, "must allow strings only")
    return names


def _name(converter: SchemaConverter, name: str, pointer: str) -> bytes:
    return encode_json(name, ",", ":", at(pointer, "properties", name), "properties")
