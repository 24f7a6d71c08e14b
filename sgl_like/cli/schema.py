"""The `--schema` option: a JSON Schema file, or `module:Class` for a pydantic model, dataclass or TypedDict."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any, Literal

from sgl_like.errors import ConstraintError, DataError, SamplingParamsError
from sgl_like.frontend.outputs.adapters import is_type, json_schema

_CLASS = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*(\.[^\W\d]\w*)*)")

Schema = dict[str, Any] | bool


def load_schema(spec: str) -> Schema:
    """The schema that `spec` names.

    Raises:
        DataError: there is no such file, module or class, or it holds no schema.
    """
    path = Path(spec)
    match = _CLASS.fullmatch(spec)
    if match and not path.exists():
        return _from_class(spec, match["module"], match["name"])
    return _from_file(path)


def check_schema(spec: str, schema: Schema, property_order: Literal["any", "schema"]) -> None:
    """Compile the schema, without a tokenizer, to find now what could not be enforced later.

    Raises:
        ConstraintError: names `spec`, the keyword and its JSON pointer.
    """
    from sgl_like.runtime.constrain.compiler import GrammarCompiler  # loads numba
    from sgl_like.runtime.constrain.vocabulary import Vocabulary

    single_bytes = Vocabulary([bytes([value]) for value in range(256)], eos_token_ids=())
    try:
        GrammarCompiler(single_bytes).compile_json_schema(schema, property_order=property_order)
    except ConstraintError as error:
        raise ConstraintError(f"{spec}: {error}") from error


def _from_file(path: Path) -> Schema:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such schema file; a schema is a JSON file or module:Class, e.g. shop.models:Order"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}"
        ) from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}: not usable JSON: {error}") from error
    if not isinstance(schema, (dict, bool)):
        raise DataError(f"{path}: a JSON Schema is an object or a boolean, not {json.dumps(schema)[:40]}")
    return schema


def _from_class(spec: str, module_name: str, class_name: str) -> Schema:
    found = _import(spec, module_name)
    for part in class_name.split("."):
        if not hasattr(found, part):
            raise DataError(f"{spec}: {module_name} has no {class_name!r}")
        found = getattr(found, part)
    if not is_type(found):
        raise DataError(f"{spec}: is not a class; give a pydantic model, a dataclass or a TypedDict")
    try:
        return json_schema(found)
    except SamplingParamsError as error:
        raise DataError(f"{spec}: {error}") from error


def _import(spec: str, module_name: str) -> Any:
    """Import a module as `python -m` would: the current folder comes first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise DataError(f"{spec}: there is no module {error.name!r} here or installed") from error
        raise DataError(f"{spec}: importing {module_name} failed: {error}") from error
    except Exception as error:  # whatever a user's module may raise
        raise DataError(f"{spec}: importing {module_name} failed: {type(error).__name__}: {error}") from error
