"""Our reading of regexes against interegular's finite automata, which nobody here wrote."""

from __future__ import annotations

import random

import interegular
import pytest

from sgl_like.runtime.constrain.compiler import GrammarCompiler
from tests.support.constrain_vocab import make_vocabulary

PATTERNS = [  # no negative look-ahead: interegular 0.3.3 accepts "ay" for (?!ab)[a-c]{1,3}, which re does not
    r"[a-c]{2,5}(x|y)?",
    r"(ab|a)(bc|c)*",
    r"a.c|[^ab]{2}",
    r"(?=a)[a-c]{3}",
    r"((a?b){2}|c+){0,3}",
    r"[가-힣]+\d?",
    r"(?i:aB)c*",
]
ALPHABET = "abcxyAB1가힣 "


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_language(pattern: str) -> None:
    automaton = interegular.parse_pattern(pattern).to_fsm()
    start = GrammarCompiler(make_vocabulary()).compile_regex(pattern).matcher()
    rng = random.Random(0)
    texts = {"".join(rng.choices(ALPHABET, k=rng.randrange(7))) for _ in range(1500)}
    agreed = 0
    for text in texts:
        matcher = start.copy()
        ours = matcher.accept_bytes(text.encode()) and matcher.is_complete
        assert ours == automaton.accepts(text), text
        agreed += ours
    assert agreed, "no text was in the language: the test shows nothing"
