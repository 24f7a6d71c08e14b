"""Masks with whole subtrees of the vocabulary added at once: the same as trying every token."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_like.runtime.constrain.pushdown import closed
from sgl_like.runtime.constrain.pushdown.compile import JsonCompiler
from sgl_like.runtime.constrain.pushdown.syntax import Style
from sgl_like.runtime.constrain.trie import build_trie
from sgl_like.runtime.constrain.vocabulary import Vocabulary

PIECES = [b"a", b"e", b"Z", b"0", b" ", b"-", b"~", b"\t", b'"', b"\\", b"n", b"\xc3", b"\xa9", b"\xe0\xa0", b"\x80",
          b"\xed", b"\xe2\x80", b"\xa8", b"\xf0\x9f", b"\x98\x80", b"\xff", "é한😀".encode()]  # fmt: skip
TOKENS = [b"".join(some) for size in (1, 2) for some in product(PIECES, repeat=size)]
TOKENS += [one + other for one in TOKENS[20::7] for other in TOKENS[3::31]]
TOKENS = list(dict.fromkeys(TOKENS))
COMPILER = JsonCompiler(Vocabulary([*TOKENS, None], [len(TOKENS)]))

PATTERNS = [
    "e",
    "a.*0",
    "^[^a]*$",
    "^[^é]*$",
    "^[ -~]*$",
    "^[^\\t]*$",
    "^[é-😀]*a$",
    "^[a-zA-Z0-9]*$",
    "^(?!.*ae)",
    "\\n",
]

COUNTED: list[dict[str, object]] = [
    {"maxLength": 3},
    {"minLength": 2, "maxLength": 5},
    {"minLength": 4},
    {"pattern": "^[^a]{1,4}$"},
    {"pattern": "^[ae]{0,2}-[^é]{2,3}$"},
    {"pattern": "^(é|e[a-z]){2,5}$"},
    {"pattern": "^(..){1,2}$"},
    {"pattern": "^([ae]+ ){0,40}[ae]$", "maxLength": 90},
    {"pattern": "^.{0,60}e.{0,60}$"},
    {"pattern": "^(?:é-?){0,30}(a.){20,}$"},
    {"pattern": "^([ae]{2} ?){9}$", "maxLength": 24},
]
KEYS: list[dict[str, object]] = [
    {"patternProperties": {each: {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    for each in PATTERNS[:6]
] + [
    {"patternProperties": {"e": {"type": "integer"}, "a.*0": {"minimum": 5}}, "additionalProperties": False},
    {"properties": {"ae": {"type": "null"}, "é": {"const": 1}}, "additionalProperties": {"type": "string"}},
    {"properties": {"ae": {"type": "null"}}, "required": ["ae"], "additionalProperties": {"const": 1}},
    {"propertyNames": {"pattern": "^[^a]*$"}},
]


@pytest.mark.parametrize(
    "schema",
    [
        *({"type": "string", **each} for each in ({}, *({"pattern": each} for each in PATTERNS), *COUNTED)),
        {"type": "string", "not": {"const": "ae"}},
        *({"type": "object", **each} for each in KEYS),
    ],
    ids=str,
)
@given(
    st.lists(
        st.sampled_from([b"a", b"e", b" ", "é".encode(), b"\xf0\x9f", b"ae" * 6, b"e " * 20]), max_size=3
    )
)
def test_masks_equal_trying_every_token(schema: dict[str, object], read: list[bytes]) -> None:
    grammar = COMPILER.compile(schema, Style()).grammar()
    start = b'"' if schema["type"] == "string" else b'{"'
    stack = grammar.machine.read(grammar.start, start + b"".join(read))
    if stack is None:
        return
    mask = np.zeros(COMPILER.vocabulary.words, dtype=np.int32)
    grammar.machine.fill(stack, mask)
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: len(TOKENS)]
    tried = [grammar.machine.read(stack, data) is not None for data in TOKENS]
    assert [token for token, bit, hit in zip(TOKENS, bits, tried, strict=True) if bit != hit] == []


@given(
    st.lists(st.binary(min_size=1, max_size=4) | st.text(min_size=1, max_size=3).map(str.encode), min_size=1)
)
def test_groups_of_subtrees(tokens: list[bytes]) -> None:
    trie = build_trie(tokens)
    paths: list[bytes] = []
    for byte, depth in zip(trie.byte.tolist(), trie.depth.tolist(), strict=True):
        paths.append((paths[-1][:depth] if paths else b"") + bytes([byte]))
    for node, found in enumerate(closed.subtree_groups(trie).tolist()):
        expected = 0
        for path in paths[node : trie.end[node]]:
            whole = path.decode("utf-8", "ignore").encode()
            rest = path[len(whole) :] if path.startswith(whole) else b"\xff"
            is_cut = not rest or any(_is_character(rest, more) for more in range(1, 4))
            expected |= int(closed.GROUPS[path[-1]]) if is_cut else 1 << 63
        assert found == expected


def _is_character(start: bytes, more: int) -> bool:
    for middle in (b"\x80\x80", b"\xa0\x80", b"\x90\x80"):
        try:
            (start + middle[:more] + b"\x80" * (more - 2)).decode()
        except UnicodeDecodeError:
            continue
        return True
    return False
