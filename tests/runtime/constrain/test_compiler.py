"""The compiler: choices, what is kept, and what is evicted."""

from __future__ import annotations

import numpy as np
import pytest

from sgl_like.errors import ConstraintError, ConstraintTooComplex
from sgl_like.runtime.constrain import fragments
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.expr import Pool
from tests.support.constrain_vocab import make_vocabulary

VOCABULARY = make_vocabulary()


def test_choices() -> None:
    compiler = GrammarCompiler(VOCABULARY)
    choices = ["foo", "foobar", "서울", "😀\n", ""]
    for choice in choices:
        matcher = compiler.compile_choices(choices).matcher()
        assert matcher.accept_bytes(choice.encode()) and matcher.is_complete
    assert not compiler.compile_choices(choices).matcher().accept_bytes(b"fooba\n")
    for bad in ([], "foo", [1], ["\ud800"]):
        with pytest.raises(ConstraintError):
            compiler.compile_choices(bad)  # type: ignore[arg-type]


def test_grammars_are_cached_and_evicted() -> None:
    compiler = GrammarCompiler(VOCABULARY, Limits(max_grammars=2))
    first = compiler.compile_regex("a")
    assert compiler.compile_regex("a") is first
    compiler.compile_regex("b")
    assert compiler.compile_regex("a") is first
    compiler.compile_regex("c")
    assert compiler.compile_regex("a") is first
    compiler.compile_regex("d")
    compiler.compile_regex("e")
    assert compiler.compile_regex("a") is not first
    tight = GrammarCompiler(VOCABULARY, Limits(max_cache_bytes=1))
    assert tight.compile_regex("a") is tight.compile_regex("a")


def test_a_runaway_is_stopped_and_nothing_else_suffers() -> None:
    compiler = GrammarCompiler(VOCABULARY, Limits(max_step_seconds=0.0))
    slow = {"type": "string", "pattern": "^(?:[a-f]{3,9}x){2,9}$", "maxLength": 40}
    matcher = compiler.compile_json_schema(slow).matcher()
    with pytest.raises(ConstraintTooComplex, match="more than 0 s"):
        matcher.accept_bytes(b'"')
    assert compiler.compile_regex("a+").matcher().accept_bytes(b"a")


def test_one_step_that_takes_too_long_is_stopped_and_forced_text_is_not_looked_for() -> None:
    source = "a?" * 300 + "a{300}b"
    limited, free = (GrammarCompiler(VOCABULARY, Limits(max_step_seconds=s)) for s in (0.0, 60.0))
    mask = np.zeros((1, VOCABULARY.words), dtype=np.int32)
    matcher = limited.compile_regex(source).matcher()
    with pytest.raises(ConstraintTooComplex, match="more than 0 s"):
        matcher.fill_mask(mask, 0)
    assert matcher.forced_bytes() == b""
    free.compile_regex(source).matcher().fill_mask(mask, 0)
    assert mask.any()
    schema = {"const": {"a": "x" * 40}}
    assert limited.compile_json_schema(schema).matcher().forced_bytes() == b""
    assert free.compile_json_schema(schema).matcher().forced_bytes().startswith(b'{"a":"xxx')


def test_compiling_in_the_background() -> None:
    compiler = GrammarCompiler(VOCABULARY)
    future = compiler.in_background(compiler.compile_json_schema, {"type": "null"}, whitespace="any")
    assert future.result(10).matcher().accept_bytes(b" null")
    with pytest.raises(ConstraintError):
        compiler.in_background(compiler.compile_regex, "(").result(10)


def test_parts_that_an_expression_has_many_times_are_clipped_once() -> None:
    """Of an ambiguous grammar; without remembering them, a mask would take longer than anybody waits."""
    pool = Pool(Limits())
    node = pool.strings([b"a"])
    for name in (b"b", b"c", b"d") * 20:
        node = pool.alt([pool.sequence(node, node), pool.sequence(pool.strings([name]), node)])
    pool.start_clock(60.0)
    assert fragments.clip(pool, node, 1000) is node
