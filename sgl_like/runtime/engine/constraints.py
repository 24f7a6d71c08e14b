"""From sampling parameters to the matcher of the constraint they hold."""

from __future__ import annotations

from sgl_like.runtime.constrain.base import Matcher
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = ["matcher_of"]


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
