"""Constrained requests in the engine: whatever a random model wants, the output satisfies its constraint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.matcher import AutomatonMatcher
from sgl_like.runtime.models.load import EMBEDDED_MODEL
from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.engine_harness import Harness
from tests.support.small_model import make_model

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["서울", "🌦 비", 'a"b']}, "minItems": 1, "maxItems": 3},
        "home": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
    },
    "required": ["name", "age", "tags", "home"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"city": {"const": "부산"}, "near": {"type": "boolean"}},
            "required": ["city"],
            "additionalProperties": False,
        }
    },
}
REGEXES = [
    r"[가-힣]{2,5}!",
    r"(👍|👎){1,3}",
    r"\d{3}-\d{4}",
    r"(yes|no)( maybe)?",
    r"[^a-z]{4,8}\.",
    r"a{3}b*c",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("constrained"))


def request(rid: str, prompt: str = "x", **params: Any) -> GenerateRequest:
    ids = list(prompt.encode())
    values = {"max_new_tokens": 200, "temperature": 1.0, "seed": 1, **params}
    return GenerateRequest(ids, SamplingParams.from_dict(values), rid=rid)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_regexes_and_schemas_hold_side_by_side(folder: Path, temperature: float) -> None:
    requests = [
        request(f"{i} {pattern}", str(i), regex=pattern, temperature=temperature, seed=i)
        for i in range(4)
        for pattern in REGEXES
    ]
    requests += [
        request(
            f"json {i}", str(i), json_schema=PERSON, property_order=order, temperature=temperature, seed=i
        )
        for i, order in enumerate(["schema", "any"] * 4)
    ]
    requests.append(request("free", temperature=temperature))
    results = Harness(folder, slots=2000, running=16).run(requests)
    for each in requests:
        result = results[each.rid]
        assert result.error is None and result.finish is not None
        if each.params.regex is not None and result.finish.type == "stop":
            assert re.fullmatch(each.params.regex, result.text), (each.params.regex, result.text)
        if each.params.json_schema is not None:
            assert result.finish.type == "stop"
            jsonschema.validate(json.loads(result.text), PERSON)
    assert (
        sum(r.finish is not None and r.finish.type == "stop" for r in results.values()) >= len(requests) * 0.7
    )


TAG: dict[str, Any] = {
    "structures": [
        {"begin": "<n>", "schema": {"type": "integer", "minimum": 1, "maximum": 9}, "end": "</n>"}
    ],
    "triggers": ["<n"],
}


def test_grammars_and_structural_tags_hold(folder: Path) -> None:
    gbnf = 'root ::= "(" root ")" | [0-9a-f]{1,3} | root "+"'
    lark = 'start: item ("," item)~0..3 ";"\nitem: "x" | "(" start ")"\n%ignore " "'
    requests = [request(f"g{i}", ebnf=gbnf, seed=i) for i in range(4)]
    requests += [request(f"l{i}", ebnf=lark, seed=i, jump_forward=i % 2 == 0) for i in range(4)]
    requests += [request(f"t{i}", structural_tag=TAG, seed=i, max_new_tokens=60) for i in range(4)]
    compiler = Harness(folder).intake.compiler
    token_bytes = compiler.vocabulary.token_bytes
    for rid, result in Harness(folder, slots=3000, running=16).run(requests).items():
        assert result.error is None and result.finish is not None
        grammar = {"g": compiler.compile_gbnf(gbnf), "l": compiler.compile_lark(lark)}.get(
            rid[0], compiler.compile_structural_tag(TAG)
        )
        matcher = grammar.matcher()
        if result.finish.type == "stop" or rid[0] == "t":
            data = b"".join(token_bytes[t] or b"" for t in result.token_ids)
            assert matcher.accept_bytes(data)
            assert matcher.is_complete or result.finish.type == "length"


def test_whitespace_reaches_schemas_and_structural_tags(folder: Path) -> None:
    intake = Harness(folder).intake
    cases: list[tuple[dict[str, Any], bytes]] = [
        ({"json_schema": PERSON}, b'{\n "name" : "a"'),
        ({"structural_tag": TAG}, b"<n>\n5</n>"),
    ]
    for params, text in cases:
        for whitespace, expected in [("compact", False), ("any", True)]:
            matcher = intake.matcher(SamplingParams.from_dict({**params, "whitespace": whitespace}))
            assert matcher is not None and matcher.accept_bytes(text) == expected


def test_a_grammar_that_is_wrong_says_where(folder: Path) -> None:
    intake = Harness(folder).intake
    for params, message in [
        ({"ebnf": "root ::= a"}, "GBNF grammar, line 1, column 10"),
        ({"ebnf": "start: a"}, "Lark grammar, line 1, column 8"),
        ({"structural_tag": {}}, "structural tag: 'triggers'"),
    ]:
        with pytest.raises(ConstraintError, match=message):
            intake.matcher(SamplingParams.from_dict(params))


def test_nothing_is_sampled_after_the_last_possible_byte(folder: Path) -> None:
    result = Harness(folder).run([request("r", regex="a[bc]d", jump_forward=False)])["r"]
    assert result.text[0] == "a" and len(result.token_ids) == 3  # no end-of-sequence token was needed
    assert result.finish is not None and result.finish.as_dict() == {"type": "stop"}


def test_jump_forward_forces_without_changing_greedy_output() -> None:
    """Where the forced text's tokenisation is canonical, on and off give the same tokens."""
    prompt = "<|system|>Turn the utterance into JSON.<|end|><|user|>play some jazz<|end|><|assistant|>"
    schema = {
        "type": "object",
        "properties": {"intent": {"const": "PlayMusic"}, "genre": {"type": "string"}},
        "required": ["intent", "genre"],
        "additionalProperties": False,
    }
    results = []
    for jump in (True, False):
        harness = Harness(EMBEDDED_MODEL)
        ids = harness.tokenizer.encode(prompt)
        params = SamplingParams(temperature=0, json_schema=json.dumps(schema), jump_forward=jump)
        results.append(harness.run([GenerateRequest(ids, params, rid="r")])["r"])
        steps = harness.core.stats.steps
    on, off = results
    assert on.text == off.text and json.loads(on.text)["intent"] == "PlayMusic"
    assert on.usage.forced_tokens > 0 == off.usage.forced_tokens
    assert on.token_ids == off.token_ids
    assert steps > 0


def test_a_constraint_that_fails_on_the_way_ends_only_its_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AutomatonMatcher.mask_parts

    def fails(self: AutomatonMatcher) -> Any:
        if self.accept_bytes(b"a"):  # only the grammar of the request "bad" can read an a
            raise ConstraintError("too many states")
        return original(self)

    monkeypatch.setattr(AutomatonMatcher, "mask_parts", fails)
    requests = [
        request("good", regex="x{5}"),
        request("bad", regex="a{5}", jump_forward=False),
        request("free"),
    ]
    results = Harness(folder).run(requests)
    assert results["good"].text == "xxxxx" and results["free"].error is None
    assert isinstance(results["bad"].error, ConstraintError)


def test_a_vocabulary_that_cannot_spell_the_output_is_an_error_not_a_hang(tmp_path: Path) -> None:
    folder = make_model(tmp_path, vocab_size=64)  # fewer logits than tokens: only bytes 0..63 can be sampled
    harness = Harness(folder)
    results = harness.run([request("r", prompt="1", regex="[0-9]{2}[a-z]")])
    assert isinstance(results["r"].error, ConstraintError)
    assert harness.run([request("s", prompt="1", regex="[0-9]{2}")])["s"].error is None
