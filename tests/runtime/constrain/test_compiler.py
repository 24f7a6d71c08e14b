"""The compiler: choices, what is kept, and what is evicted."""

from __future__ import annotations

import pytest

from sgl_like.errors import ConstraintError
from sgl_like.runtime.constrain.base import Limits
from sgl_like.runtime.constrain.compiler import GrammarCompiler
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
