"""Pydantic models: random outputs against ``jsonschema`` and the model itself, and the other way round."""

from __future__ import annotations

import datetime
import json
import random
import uuid
from enum import Enum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from sgl_like.runtime.constrain.compiler import CompiledFrames, GrammarCompiler, PropertyOrder
from tests.support.constrain_vocab import make_vocabulary, random_output

VOCABULARY = make_vocabulary()
ORDERS: tuple[PropertyOrder, ...] = ("schema", "any")


def compile_schema(schema: Any, order: PropertyOrder = "schema") -> CompiledFrames:
    return GrammarCompiler(VOCABULARY).compile_json_schema(schema, order)


def accepts(schema: Any, text: str, order: PropertyOrder = "schema") -> bool:
    matcher = compile_schema(schema, order).matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete


class Color(Enum):
    RED = "red"
    GREEN = "green"


class Address(BaseModel):
    street: str = Field(min_length=1, max_length=12, description="Where to")
    zip_code: Annotated[str, Field(pattern=r"^\d{5}(?:-\d{4})?$")]
    lines: tuple[int, str] = (1, "")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str | None = None


class Bird(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["bird", "hen"]
    wings: Literal[2]


class Ant(BaseModel):
    kind: Literal["ant"] = "ant"


class Bee(BaseModel):
    kind: Literal["bee"] = "bee"


class Person(BaseModel):
    """Someone."""

    name: Annotated[str, Field(min_length=1)]
    age: Annotated[int, Field(gt=0, lt=150)]
    email: str | None = None
    color: Color
    address: Address
    friends: list[Address] = Field(default_factory=list, max_length=2)


class Times(BaseModel):
    day: datetime.date
    at: datetime.datetime
    clock: datetime.time
    key: uuid.UUID
    optional_day: datetime.date | None = None


class Zoo(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: Annotated[list[Cat | Bird], Field(min_length=1, max_length=3)]
    best: Annotated[Cat | Bird, Field(discriminator="kind")]
    tagged: Annotated[Ant | Bee, Field(discriminator="kind")]


class Maps(BaseModel):
    counts: dict[str, int]
    by_color: dict[Color, list[bool]] = Field(max_length=2)
    anything: Any
    mixed: list[int | str | None]


class Named(BaseModel):
    names: dict[Annotated[str, Field(pattern="^[a-c]+$")], None]


class Numbers(BaseModel):
    ratio: Annotated[float, Field(ge=0, le=1)]
    delta: Annotated[float, Field(gt=-2.5, lt=1000.125)]
    free: float
    whole: int
    few: Annotated[int, Field(ge=-3, lt=12)]
    pair: tuple[Annotated[float, Field(lt=0)], bool]


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int
    b: Literal["x", 1, None] = None


class Nothing(BaseModel):
    pass


class Tree(BaseModel):
    name: str | None = None
    children: list[Tree]


MODELS = [Address, Cat, Dog, Bird, Person, Times, Zoo, Maps, Numbers, Loose, Nothing, Tree]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("model", MODELS)
def test_random_outputs_of_pydantic_models_validate(model: type[BaseModel], order: PropertyOrder) -> None:
    schema = model.model_json_schema()
    checker = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.FormatChecker(["date", "uuid"])
    )
    grammar = compile_schema(model, order)
    for seed in range(12):
        text = random_output(grammar.matcher(), VOCABULARY, random.Random(seed), tokens=150).decode()
        checker.validate(json.loads(text))
        model.model_validate_json(text)


def test_names_that_fit_no_pattern_are_allowed_as_the_schema_of_pydantic_says() -> None:
    assert accepts(Named, '{"names":{"abc":null,"d":1}}')
    assert not accepts(Named, '{"names":{"abc":1}}')


@pytest.mark.parametrize("order", ORDERS)
def test_a_pydantic_instance_is_accepted(order: PropertyOrder) -> None:
    address = Address(street="가로수길 1", zip_code="12345-6789")
    person = Person(name='O"Neil 😀\n', age=149, color=Color.RED, address=address, friends=[address])
    assert accepts(Person, person.model_dump_json(), order)
    times = Times(
        day=datetime.date(2024, 2, 29),
        at=datetime.datetime(2024, 12, 31, 23, 59, 59, 123456, tzinfo=datetime.UTC),
        clock=datetime.time(0, 0, tzinfo=datetime.UTC),
        key=uuid.UUID(int=5),
    )
    assert accepts(Times, times.model_dump_json(), order)


def test_schema_as_text_or_model_or_dict_is_the_same_grammar() -> None:
    compiler = GrammarCompiler(VOCABULARY)
    schema = Cat.model_json_schema()
    grammar = compiler.compile_json_schema(schema)
    assert compiler.compile_json_schema(json.dumps(schema)) is grammar
    assert compiler.compile_json_schema(Cat) is grammar
    assert compiler.compile_json_schema(schema, "any") is not grammar
