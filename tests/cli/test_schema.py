"""The `--schema` option."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from sgl_like.cli.schema import check_schema, load_schema
from sgl_like.errors import ConstraintError, DataError

MODULE = """
from dataclasses import dataclass
from typing_extensions import TypedDict
from pydantic import BaseModel

class Person(BaseModel):
    name: str
    age: int

class Outer:
    class Inner(BaseModel):
        x: int

@dataclass
class Point:
    x: float

class Pair(TypedDict):
    a: int

class Odd:
    pass

class Worse(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    odd: Odd

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a module whose name no other test uses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "shop_models.py").write_text(MODULE)
    (tmp_path / "shop_broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "shop_raises.py").write_text("1 / 0\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("shop_"):
            del sys.modules[name]


def test_file(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"é": {"const": "😀"}}}
    path = tmp_path / "s.json"
    path.write_text("\ufeff" + json.dumps(schema, ensure_ascii=False))
    assert load_schema(str(path)) == schema
    path.write_text("true")
    assert load_schema(str(path)) is True


@pytest.mark.parametrize(
    ("name", "properties"),
    [("Person", {"name", "age"}), ("Outer.Inner", {"x"}), ("Point", {"x"}), ("Pair", {"a"})],
)
def test_class(here: Path, name: str, properties: set[str]) -> None:
    schema = load_schema(f"shop_models:{name}")
    assert isinstance(schema, dict)
    assert set(schema["properties"]) == properties


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none.json", "none.json: no such schema file; a schema is a JSON file or module:Class"),
        ("bad.json", "bad.json:2: not valid JSON: Expecting value at column 6"),
        ("list.json", "list.json: a JSON Schema is an object or a boolean, not [1]"),
        ("latin.json", "latin.json: not UTF-8 text"),
        (".", ".: cannot be read: Is a directory"),
        ("shop_none:Person", "shop_none:Person: there is no module 'shop_none' here or installed"),
        ("shop_none.sub:Person", "there is no module 'shop_none' here or installed"),
        ("shop_models:Nobody", "shop_models:Nobody: shop_models has no 'Nobody'"),
        ("shop_models:number", "shop_models:number: is not a class"),
        ("shop_models:Worse", "shop_models:Worse: pydantic makes no JSON Schema of Worse: "),
        ("shop_broken:X", "importing shop_broken failed: No module named 'nowhere_to_be_found'"),
        ("shop_raises:X", "importing shop_raises failed: ZeroDivisionError: division by zero"),
    ],
)
def test_errors(here: Path, spec: str, message: str) -> None:
    (here / "bad.json").write_text('{"a":\n     ]')
    (here / "list.json").write_text("[1]")
    (here / "latin.json").write_bytes(b'"\xe9"')
    with pytest.raises(DataError) as caught:
        load_schema(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["any", "schema"])
def test_check_passes_what_can_be_enforced(order: str) -> None:
    check_schema(
        "x",
        {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False},
        order,
    )


@pytest.mark.parametrize("order", ["any", "schema"])
def test_check_names_file_keyword_and_pointer(order: str) -> None:
    schema = {"type": "object", "properties": {"tags": {"type": "array", "items": {"$ref": "tag.json"}}}}
    with pytest.raises(ConstraintError, match=r"^my\.json: .*'\$ref' at '/properties/tags/items/\$ref'"):
        check_schema("my.json", schema, order)
