"""`GenText`: the value of a gen. It is its text, and knows what else is known about it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sgl_like.errors import OutputError
from sgl_like.runtime.logprobs import TokenLogprob

if TYPE_CHECKING:
    from sgl_like.frontend.outputs.output_types import OutputType
    from sgl_like.frontend.tools.tools import ToolCall

__all__ = ["GenText"]

_UNREAD: Any = object()


class GenText(str):
    """The text of an output: a str in every respect, with the value it stands for and how it came about.

    What is made of it (``text + "!"``, ``text.strip()``) is plain str again.

    Args:
        text: the text.
        token_ids: the tokens that stand for it, as they are in the prompt of what comes next. All that were sampled,
            with one that ended the output and what was cut off, are ``meta["output_ids"]``.
        meta: token counts, finish reason and so on, as from ``s.get_meta_info``.
        output_type: how the text is read; ``None`` if it is just text.
        parsed: the value, where it is known already.
        tool_calls: the functions that the model called before it wrote this.
    """

    __slots__ = ("_output_type", "_parsed", "meta", "token_ids", "tool_calls")

    token_ids: tuple[int, ...]
    meta: Mapping[str, Any]
    tool_calls: tuple[ToolCall, ...]
    _output_type: OutputType | None
    _parsed: Any

    def __new__(
        cls,
        text: str,
        token_ids: Sequence[int],
        meta: Mapping[str, Any],
        output_type: OutputType | None = None,
        parsed: Any = _UNREAD,
        tool_calls: Sequence[ToolCall] = (),
    ) -> GenText:
        """See the class."""
        self = super().__new__(cls, text)
        self.token_ids = tuple(token_ids)
        self.meta = meta
        self.tool_calls = tuple(tool_calls)
        self._output_type = output_type
        self._parsed = parsed
        return self

    @property
    def parsed(self) -> Any:
        """The value: of the type that was given as ``json_schema``, the JSON value for a plain schema, an int for
        `gen_int`, and so on. Found when it is first asked for.

        Raises:
            OutputError: the output was cut, or breaks a rule of its type that a schema cannot express, or the gen has
                no type.
        """
        if self._parsed is _UNREAD:
            self._parsed = self._parse()
        return self._parsed

    @property
    def output_type(self) -> OutputType | None:
        """How the text is read, if the gen has a type."""
        return self._output_type

    @property
    def finish_reason(self) -> str:
        """``"stop"``, or ``"length"`` if the output was cut."""
        return str(self.meta["finish_reason"]["type"])

    @property
    def logprobs(self) -> list[TokenLogprob] | None:
        """Log-probability, id and (if asked for) text of each of ``meta["output_ids"]``; ``None`` unless asked for by
        ``return_logprob=True``.
        """
        return self.meta.get("output_token_logprobs")

    def _parse(self) -> Any:
        if self._output_type is None:
            raise OutputError(
                "there is nothing to parse: give the gen a json_schema, a dtype or validate=SomeModel, or read its text"
            )
        try:
            return self._output_type.parse(self)
        except OutputError as error:
            if self.finish_reason == "length":
                raise OutputError(f"the output was cut at its max_tokens: {error}") from error
            raise

    def __copy__(self) -> GenText:
        return self

    def __deepcopy__(self, memo: object) -> GenText:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """What cannot be pickled (of a class within a function, say) is left behind, rather than all the rest."""
        state = (self.meta, self._output_type, self._parsed, self.tool_calls)
        kept = [each if each is not _UNREAD and _picklable(each) else None for each in state]
        return _restored, (str(self), self.token_ids, *kept, kept[2] is not self._parsed)


def _restored(
    text: str, token_ids: Any, meta: Any, output_type: Any, parsed: Any, tool_calls: Any, unread: bool
) -> GenText:
    return GenText(text, token_ids, meta or {}, output_type, _UNREAD if unread else parsed, tool_calls or ())


def _picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # whatever __reduce__ of somebody's class raises
        return False
    return True
