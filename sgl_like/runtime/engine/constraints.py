"""From sampling parameters to the matcher of the constraint they hold. (Needs no torch.)"""

from __future__ import annotations

from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.constrain.vocabulary import Vocabulary
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["matcher_of", "vocabulary_of"]


def vocabulary_of(tokenizer: Tokenizer, vocab_size: int) -> Vocabulary:
    """The vocabulary that constraints are compiled for: as many tokens as the model has logits."""
    known = list(tokenizer.token_bytes)[:vocab_size]
    padded = known + [None] * (vocab_size - len(known))
    eos = [token for token in tokenizer.eos_token_ids if token < vocab_size]
    return Vocabulary(padded, eos, tokenize=tokenizer.encode_continuation)


def matcher_of(compiler: GrammarCompiler, params: SamplingParams) -> Matcher:
    """A fresh matcher of the constraint of `params`, which have one. The compiler keeps what it has compiled.

    Raises:
        ConstraintError: it cannot be compiled.
    """
    order, whitespace = params.property_order, params.whitespace
    if params.regex is not None:
        return compiler.compile_regex(params.regex).matcher()
    if params.json_schema is not None:
        return compiler.compile_json_schema(params.json_schema, order, whitespace=whitespace).matcher()
    if params.ebnf is not None:
        return compiler.compile_ebnf(params.ebnf).matcher()
    return compiler.compile_structural_tag(params.structural_tag, order, whitespace=whitespace).matcher()
