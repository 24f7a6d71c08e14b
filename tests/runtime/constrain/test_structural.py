"""Structural tags: against a plain reader of the output, token by token."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from sgl_like.errors import ConstraintError, UnsupportedSchemaError
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from tests.support.constrain_vocab import allowed, make_vocabulary, random_output

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS: dict[str, Any] = {
    "structures": [
        {"begin": "<tool=add>", "schema": SCHEMA, "end": "</tool>"},
        {"begin": "<tool=sub>", "schema": {"enum": [1, 2]}, "end": "</tool>"},
    ],
    "triggers": ["<tool="],
}
PIECES = [
    "<",
    "<t",
    "tool=",
    "<tool=",
    "<tool=add>{",
    "add>",
    '{"a":',
    "true",
    "false",
    "}",
    "</tool>",
    "1",
    "1<",
    "a",
]
VOCABULARY = Vocabulary(
    [*(piece.encode() for piece in PIECES), *(bytes([i]) for i in range(256)), b"</s>"], [270]
)


def accepts(tag: Any, text: str) -> bool:
    matcher = GrammarCompiler(VOCABULARY).compile_structural_tag(tag).matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete


def reads(tag: dict[str, Any], text: str) -> bool:
    """The form by hand: up to the first trigger, one structure of small known texts, and again."""
    ends = {text.find(t) + len(t): t for t in tag["triggers"] if t in text}
    if not ends:
        return True
    end = min(ends)
    for structure in tag["structures"]:
        begin = structure["begin"]
        if begin.startswith(ends[end]) and text.startswith(begin[len(ends[end]) :], end):
            rest = text[end + len(begin) - len(ends[end]) :]
            for value in ("1", "2", '{"a":true}', '{"a":false}'):
                valid = (value in "12") == ("enum" in structure["schema"])
                if valid and rest.startswith(value + structure["end"]):
                    return reads(tag, rest[len(value + structure["end"]) :])
    return False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("any text < <tool 서울 </tool>", True),
        ('so: <tool=add>{"a":true}</tool>', True),
        ('<tool=add>{"a":true}</tool><tool=sub>2</tool> and more', True),
        ("<tool=", False),
        ("<tool=mul>1</tool>", False),
        ("<tool=sub>3</tool>", False),
        ("<tool=sub>2</tool", False),
        ("<<tool=sub>2</tool>", True),
        ("<tool=sub>2</tool><tool=", False),
    ],
)
def test_known_texts(text: str, expected: bool) -> None:
    assert accepts(TOOLS, text) == expected == reads(TOOLS, text)
    assert accepts(json.dumps(TOOLS), text) == expected


def test_random_texts_and_masks() -> None:
    compiled = GrammarCompiler(VOCABULARY).compile_structural_tag(TOOLS)
    for seed in range(30):
        rng = random.Random(seed)
        text = "".join(rng.choices(PIECES, k=rng.randint(1, 8)))
        matcher = compiled.matcher()
        assert (matcher.accept_bytes(text.encode()) and matcher.is_complete) == reads(TOOLS, text)
        matcher, output = compiled.matcher(), ""
        for _ in range(12):
            mask = allowed(matcher)
            assert mask == {t for t in range(VOCABULARY.size) if matcher.copy().accept_token(t)}
            pieces = [t for t in mask if t < len(PIECES)]
            choice = rng.choice(pieces or sorted(mask))
            assert matcher.accept_token(choice)
            if matcher.is_terminated:
                break
            output += (VOCABULARY.token_bytes[choice] or b"").decode()
        assert reads(TOOLS, output + matcher.shortest_completion().decode())


def test_several_triggers() -> None:
    tag = {
        "structures": [
            {"begin": "<a>", "schema": {"enum": [1]}, "end": ""},
            {"begin": "ab!", "schema": {"enum": [2]}, "end": "/"},
            {"begin": "<ab?", "schema": {"enum": [1]}, "end": "/"},
            {"begin": "<ab!", "schema": {"enum": [3]}, "end": "/"},
        ],
        "triggers": ["<a>", "ab", "<ab"],
    }
    for text in ("<a>1<a>1 x", "xab!2/", "<ab?1/", "<ab!2/", "<ab!3/", "<<ab?1/", "a <a"):
        assert accepts(tag, text), text
    for text in ("ab", "ab?1/", "<ab", "<a>2", "xab!2", "xab!3/", "<ab?2/"):
        assert not accepts(tag, text), text


def test_structures_that_begin_alike_share_their_schemas() -> None:
    structures = [{"begin": "!x", "schema": {"enum": values}, "end": ";"} for values in ([1], ["a"])]
    tag = {"structures": structures, "triggers": ["!"]}
    for text in ("!x1;", '!x"a"; and !x1;'):
        assert accepts(tag, text), text
    assert not accepts(tag, "!x2;")


def test_what_could_be_more_of_a_number_is_more_of_it() -> None:
    tag = {"structures": [{"begin": "#", "schema": {"enum": [1]}, "end": ""}], "triggers": ["#"]}
    for text in ("#1", "#1 x", "#1, #1", "#1.0."):
        assert accepts(tag, text), text
    assert not accepts(tag, "#1. x")


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("only", [False, True])
def test_outputs_that_begin_with_a_structure_or_end_with_the_first(first: bool, only: bool) -> None:
    tag = TOOLS | {"at_least_one": first, "stop_after_first": only}
    call = '<tool=add>{"a":true}</tool>'
    assert accepts(tag, call)
    assert accepts(tag, "") == accepts(tag, "some text") == accepts(tag, f"so {call}") == (not first)
    assert accepts(tag, f"{call} and so") == accepts(tag, f"{call}<tool=sub>1</tool>") == (not only)
    vocabulary = make_vocabulary()
    compiled = GrammarCompiler(vocabulary).compile_structural_tag(tag)
    for seed in range(10):
        text = random_output(compiled.matcher(), vocabulary, random.Random(seed))
        matcher = GrammarCompiler(VOCABULARY).compile_structural_tag(tag).matcher()
        assert matcher.accept_bytes(text) and matcher.is_complete
        assert text.startswith(b"<tool=") or not first
    assert compiled.matcher().forced_bytes() == (b"<tool=" if first else b"")


ANSWER: dict[str, Any] = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize("schema", [None, ANSWER])
def test_outputs_without_free_text(only: bool, schema: Any) -> None:
    tag = TOOLS | {"free_text": False, "stop_after_first": only}
    tag |= {} if schema is None else {"otherwise": schema}
    call, other = '<tool=add>{"a":true}</tool>', "<tool=sub>1</tool>"
    assert accepts(tag, call) and accepts(tag, other)
    for text in (call + other, f"{call}\n{other}", f"{call} \n{other} "):
        assert accepts(tag, text) == (not only), text
    for text in ("", "so", f"so {call}", f"{call} so", f"{call}   \n{other}", f"{call}{{}}", "<tool="):
        assert not accepts(tag, text), text
    assert accepts(tag, '{"n":2}') == (schema is not None)
    for text in ('{"n":3}', '{"n":2}' + call, '{"n":', "1"):
        assert not accepts(tag, text), text
    vocabulary = make_vocabulary()
    compiled = GrammarCompiler(vocabulary).compile_structural_tag(tag)
    kinds = set()
    for seed in range(20):
        text = random_output(compiled.matcher(), vocabulary, random.Random(seed))
        assert accepts(tag, text.decode())
        kinds.add(text[:1])
    assert kinds == ({b"<"} if schema is None else {b"<", b"{"})
    matcher = compiled.matcher()
    assert matcher.forced_bytes() == (b"<tool=" if schema is None else b"")
    assert accepts(tag, matcher.shortest_completion().decode())


@pytest.mark.parametrize("schema", [None, ANSWER])
def test_masks_without_free_text_are_exact(schema: Any) -> None:
    tag = TOOLS | {"free_text": False} | ({} if schema is None else {"otherwise": schema})
    compiled = GrammarCompiler(VOCABULARY).compile_structural_tag(tag)
    for seed in range(20):
        rng, matcher = random.Random(seed), compiled.matcher()
        for _ in range(15):
            mask = allowed(matcher)
            assert mask == {t for t in range(VOCABULARY.size) if matcher.copy().accept_token(t)}
            assert matcher.accept_token(rng.choice(sorted(mask)))
            if matcher.is_terminated:
                break


def test_forced_and_completed() -> None:
    vocabulary = make_vocabulary()
    matcher = GrammarCompiler(vocabulary).compile_structural_tag(TOOLS).matcher()
    assert matcher.is_complete and matcher.forced_bytes() == b""
    assert matcher.accept_bytes(b"text <tool=a")
    assert not matcher.is_complete and matcher.forced_bytes() == b'dd>{"a":'
    assert matcher.accept_bytes(b'dd>{"a":t')
    assert matcher.forced_bytes() == b"rue}</tool>" == matcher.shortest_completion()
    random_output(matcher, vocabulary, random.Random(0))


def test_property_order_separators_and_whitespace_reach_the_schemas() -> None:
    schema = {"type": "object", "properties": {k: {"enum": [1]} for k in "ab"}, "required": ["a", "b"]}
    tag = {"structures": [{"begin": "!", "schema": schema, "end": ""}], "triggers": ["!"]}
    compiler = GrammarCompiler(VOCABULARY)
    matcher = compiler.compile_structural_tag(tag, "any", (", ", ": ")).matcher()
    assert matcher.accept_bytes(b'!{"b": 1, "a": 1}')
    assert not compiler.compile_structural_tag(tag).matcher().accept_bytes(b'!{"b"')
    text = b'! {\n\t"a" : 1,\n\t"b" : 1 } and '
    assert compiler.compile_structural_tag(tag, whitespace="any").matcher().accept_bytes(text)
    assert not compiler.compile_structural_tag(tag).matcher().accept_bytes(text)


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        (3, "is an object, not int"),
        ("{", "is not JSON"),
        ({"triggers": ["a"]}, "'structures' is a non-empty list"),
        ({"structures": TOOLS["structures"]}, "'triggers' is a non-empty list"),
        ({**TOOLS, "triggers": [""]}, "'triggers' is a non-empty list of non-empty"),
        ({**TOOLS, "triggers": ["<call"]}, r"structures\[0\]: begin '<tool=add>' starts with none of"),
        ({**TOOLS, "format": {}}, "'format' is not supported"),
        ({**TOOLS, "otherwise": False}, "'otherwise' allows no output"),
        ({**TOOLS, "free_text": 0}, "'free_text' must be true or false"),
        (
            {"structures": [{"begin": "{x", "schema": {}, "end": ""}], "triggers": ["{x"], "otherwise": {}},
            "begin neither with whitespace",
        ),
        ({**TOOLS, "at_least_one": 1}, "'at_least_one' must be true or false"),
        ({**TOOLS, "type": "tags"}, "the type 'tags' is not supported"),
        ({**TOOLS, "structures": [{"begin": "<tool="}]}, r"structures\[0\] has to have"),
        ({**TOOLS, "structures": [{"begin": "<tool=", "schema": {}, "end": 1}]}, "'end' is a string"),
        ({**TOOLS, "structures": [{"begin": "<tool=", "schema": 3, "end": ""}]}, "JSON schema is an object"),
        (
            {**TOOLS, "structures": [{"begin": "xax", "schema": {}, "end": ""}], "triggers": ["xax", "a"]},
            "never reached",
        ),
        (
            {**TOOLS, "structures": [{"begin": "<tool=", "schema": {}, "end": end} for end in ("a", "b")]},
            r"structures\[0\] and structures\[1\] begin alike and end differently",
        ),
        (
            {
                **TOOLS,
                "structures": [{"begin": "<tool=" + more, "schema": {}, "end": ""} for more in ("ab", "a")],
            },
            r"structures\[0\] begins like the whole beginning of structures\[1\]",
        ),
        (
            {**TOOLS, "structures": [{"begin": "<tool=", "schema": {"type": "number"}, "end": ".5"}]},
            r"structures\[0\]: its value may be a number, and its 'end' begins like more of the number",
        ),
        (
            {**TOOLS, "structures": [{"begin": "<tool=", "schema": False, "end": ""}]},
            r"structures\[0\]: its schema allows no output",
        ),
    ],
)
def test_errors(tag: Any, message: str) -> None:
    with pytest.raises(ConstraintError, match=message):
        GrammarCompiler(VOCABULARY).compile_structural_tag(tag)


def test_a_schema_that_cannot_be_enforced() -> None:
    tag = {"structures": [{"begin": "<", "schema": {"$ref": "#/nowhere"}, "end": ""}], "triggers": ["<"]}
    with pytest.raises(UnsupportedSchemaError):
        GrammarCompiler(VOCABULARY).compile_structural_tag(tag)
