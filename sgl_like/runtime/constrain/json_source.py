"""JSON schemas in the forms that users have them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sgl_like.errors import ConstraintError

__all__ = ["load_schema"]


def load_schema(schema: Any) -> Mapping[str, Any] | bool:
    """A schema as JSON values.

    Args:
        schema: a mapping, a bool, JSON text, or anything with ``model_json_schema()`` (a pydantic model).

    Raises:
        ConstraintError: text that is not JSON (with its position), or a value that is not a schema.
    """
    if hasattr(schema, "model_json_schema"):
        schema = schema.model_json_schema()
    if isinstance(schema, str | bytes):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise ConstraintError(f"the JSON schema is not JSON: {error}") from None
    if not isinstance(schema, Mapping | bool):
        raise ConstraintError(f"a JSON schema is an object or a boolean, not {type(schema).__name__}")
    return schema
