"""What the model is shown between two attempts: what it wrote, and what was wrong with it.

    within an assistant message                      anywhere else
    ... <|assistant|>Sum: 5<|end|>                   ... Sum: 5
    <|user|>This was not accepted: ...<|end|>        [This was not accepted: ...]
    <|assistant|>Sum: _                              _

It is added to a copy of the prompt, which is forgotten when an attempt has been accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sgl_like.frontend.operations.sample import Sample
from sgl_like.frontend.outputs.validation import Refusal
from sgl_like.frontend.prompt import Piece, Prompt

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["append_feedback"]


def append_feedback(prompt: Prompt, sample: Sample, refusal: Refusal, at: Interpreter) -> Prompt:
    """`prompt` with what was sampled for it, and why that was refused.

    Raises:
        ChatTemplateError: the chat template has no place for it.
    """
    other = prompt.copy()
    sample.append_to(other, at)
    if other.role is None or other.role.role != "assistant":
        other.append_pieces([Piece(f"\n[{refusal.message}]\n", trusted=False)])
        return other
    begun = prompt.pieces[other.role.start :]
    other.close_role()
    for role in ("user", "assistant"):
        prefix, suffix = at.context.backend.role_affixes(other.messages, role)
        other.open_role(role, prefix, suffix)
        if role == "user":
            other.append_given(refusal.message)
            other.close_role()
    other.append_pieces(begun)
    return other
