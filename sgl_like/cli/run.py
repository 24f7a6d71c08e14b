"""`sgl-like run`: one prompt, or a conversation, streamed to the terminal.

The conversation is kept as messages; every turn is a run of one program over all of them, so what was said before
is found in the engine's prefix cache and not computed again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sgl_like.errors import SglError

__all__ = ["Conversation", "chat", "printable"]


@dataclass
class Conversation:
    """Messages so far, and how to answer the next one.

    Args:
        backend: what answers.
        params: of every answer, as `sgl_like.gen` names them.
        system: a first message; empty for none.
        plain: no messages and no chat template: the prompt's text is continued as it is.
    """

    backend: Any
    params: Mapping[str, Any]
    system: str = ""
    plain: bool = False
    turns: list[tuple[str, str]] = field(default_factory=list)  # question, answer
    cut: bool = False  # whether the last answer ended because it had reached ``max_tokens``

    def ask(self, prompt: str) -> Iterator[str]:
        """The answer in pieces. It is part of the conversation when it has been read to its end.

        Raises:
            SglError: the prompt or a parameter cannot be used.
        """
        state = _answer().run(self, prompt, backend=self.backend, stream=True)
        try:
            yield from state.text_iter("answer")
        except BaseException:
            state.cancel()
            raise
        self.turns.append((prompt, str(state["answer"])))
        self.cut = state.get_meta_info("answer")["finish_reason"]["type"] == "length"


def _answer() -> Any:
    """The program of one turn."""
    import sgl_like as sgl

    @sgl.function
    def answer(s: Any, conversation: Conversation, prompt: str) -> None:
        gen = sgl.gen("answer", **conversation.params)
        if conversation.plain:
            s += prompt + gen
            return
        if conversation.system:
            s += sgl.system(conversation.system)
        for question, said in conversation.turns:
            s += sgl.user(question) + sgl.assistant(said)
        s += sgl.user(prompt) + sgl.assistant(gen)

    return answer


def chat(
    conversation: Conversation,
    read: Callable[[], str],
    write: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    """Read a question, write the answer, until `read` raises EOFError.

    KeyboardInterrupt during an answer ends that answer only; while reading it ends the conversation. An error is
    noted, and the conversation goes on.
    """
    while True:
        try:
            prompt = read()
        except (EOFError, KeyboardInterrupt):
            write("\n")
            return
        if not prompt.strip():
            continue
        try:
            for piece in conversation.ask(prompt):
                write(printable(piece))
        except KeyboardInterrupt:
            note("interrupted; this turn is forgotten")
        except SglError as error:
            note(f"error: {error}")
        write("\n")


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters but line ends and tabs become spaces."""
    return (
        "".join(c if c in "\n\t" or c.isprintable() else " " for c in text) if sys.stdout.isatty() else text
    )
