"""``separate_reasoning``: gens whose reasoning goes to a variable of its own, and not into the prompt.

Each gen of the expression knows that it is separated, and splits its output while it arrives
(`sgl_like.runtime.reasoning`). The node behind them changes nothing; it is there to be looked at,
as in SGLang.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from sgl_like.errors import SamplingParamsError
from sgl_like.frontend.expr import Expr, ExprList, Gen, Node, Select, flatten
from sgl_like.runtime.reasoning import make_splitter

__all__ = ["SeparateReasoning", "reasoning_name", "separate_reasoning"]


def reasoning_name(name: str | None) -> str:
    """The variable for the reasoning of a gen.

    Raises:
        SamplingParamsError: the gen has no name.
    """
    if not name:
        raise SamplingParamsError("separate_reasoning needs gens with a name: sgl.gen('answer')")
    return f"{name}_reasoning_content"


@dataclass(frozen=True, repr=False)
class SeparateReasoning(Node):
    """Marks the end of an expression whose gens are separated.

    Raises:
        SamplingParamsError: it has no gen, or one without a name.
    """

    expr: Expr | str
    model_type: str | None = None

    def __post_init__(self) -> None:
        if not self._names():
            raise SamplingParamsError(f"separate_reasoning: there is no gen in {self.expr!r}")

    @property
    def name(self) -> str:
        """The variable for the reasoning, of the last of several gens."""
        return self._names()[-1]

    def process_name_for_reasoning(self, name: str) -> str:
        """See `reasoning_name`; SGLang's name for it."""
        return reasoning_name(name)

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"SeparateReasoning(model_type={self.model_type}, name={self.name})"

    def _names(self) -> list[str]:
        return [reasoning_name(node.name) for node in flatten(self.expr) if isinstance(node, (Gen, Select))]


def separate_reasoning(expr: Expr | str | None = None, model_type: str | None = None) -> ExprList:
    """`expr` with what a reasoning model thinks kept apart from what it answers.

    For each gen ``"x"`` in it ``s["x"]`` is the answer and ``s["x_reasoning_content"]`` the reasoning, also while
    they stream. The reasoning does not become part of the prompt or the text, as reasoning models expect of earlier
    turns; if the chat template has opened it, an empty one stands there. An output that does not begin with reasoning
    is all answer. Without an end of the reasoning (``max_tokens``) it is all reasoning.

    Args:
        expr: one or several gens, also inside messages.
        model_type: family of the model, as in SGLang: one of `sgl_like.runtime.reasoning.REASONING_MODELS`.
            ``None``: whichever of the families with tags around the reasoning the output begins with.

    Raises:
        SamplingParamsError: there is no gen in `expr`, or one without a name, or one with tools. An unknown
            `model_type` is the error of the state.
    """
    given = "" if expr is None else expr
    if any(isinstance(node, Gen) and node.tools is not None for node in flatten(given)):
        raise SamplingParamsError("separate_reasoning: a gen with tools cannot be separated yet")
    marker = SeparateReasoning(given, model_type)
    separated = [
        replace(node, make_splitter=partial(make_splitter, model_type)) if isinstance(node, Gen) else node
        for node in flatten(given)
    ]
    return ExprList((*separated, marker))
