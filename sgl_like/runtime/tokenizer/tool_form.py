"""How a chat template writes the call of a function and its result, read off the template itself.

A conversation with one call is rendered with placeholders, and what stands around them is the form:

    <|im_start|>assistant                 the turn has begun
    <tool_call>
    {"name": "N", "arguments": {"K": "V"}}          before, between
    </tool_call><|im_end|>                          after_call
    <|im_start|>tool
    R<|im_end|>
    <|im_start|>assistant                           after_result: the turn goes on

Templates whose form is another (the name after the arguments, say) count as having none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_like.errors import ChatTemplateError

__all__ = ["PLAIN", "ToolForm", "call_message", "is_part_of_answer", "read_tool_form", "result_message"]

_NAME, _KEY, _VALUE = "placeholder_name", "placeholder_key", "placeholder_value"
_RESULT = 'placeholder "result"'


@dataclass(frozen=True, slots=True)
class ToolForm:
    """What stands around the name, the arguments and the result of a call.

    Args:
        before: up to the name.
        between: name and arguments, which are a JSON object.
        after_call: the arguments and the result.
        after_result: up to where the model goes on.
        quoted: the result stands inside a JSON string.
    """

    before: str
    between: str
    after_call: str
    after_result: str
    quoted: bool = False

    @property
    def trigger(self) -> str:
        """What tells the beginning of a call from other text: its tag, if there is one."""
        begin = self.before.lstrip()
        at = min((begin.index(bracket) for bracket in "{[(" if bracket in begin), default=len(begin))
        return begin[:at].rstrip() or begin

    def result(self, text: str) -> str:
        """A result as it is written."""
        return json.dumps(text, ensure_ascii=False)[1:-1] if self.quoted else text


PLAIN = ToolForm(
    before='<tool_call>{"name": "',
    between='", "arguments": ',
    after_call="}</tool_call>\n<tool_response>",
    after_result="</tool_response>\n",
)
"""The form where there is no chat template, or none with calls: all within the text of one message."""


def call_message(content: str, name: str, arguments: Any, call_id: str) -> dict[str, Any]:
    """The message of an assistant that calls a function, in OpenAI's format."""
    function = {"name": name, "arguments": arguments}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def result_message(content: str, name: str, call_id: str) -> dict[str, Any]:
    """The message that has the result."""
    return {"role": "tool", "tool_call_id": call_id, "name": name, "content": content}


def is_part_of_answer(message: Mapping[str, Any]) -> bool:
    """Whether it is one of the two, which an answer of the assistant goes on from."""
    return bool(message.get("tool_calls")) or "tool_call_id" in message


def read_tool_form(render: Callable[[Sequence[Mapping[str, Any]], bool], str]) -> ToolForm | None:
    """The form of a template; ``None`` if it has none that could be read.

    Args:
        render: a conversation, with or without the prompt for the next answer, as text.
    """
    asked = [{"role": "user", "content": "placeholder_question"}]
    for arguments in ({_KEY: _VALUE}, json.dumps({_KEY: _VALUE})):
        called = call_message("", _NAME, arguments, "call00000")
        try:
            begun = render(asked, True)
            whole = render([*asked, called, result_message(_RESULT, _NAME, "call00000")], True)
        except ChatTemplateError:
            continue
        form = _between_placeholders(begun, whole)
        if form is not None:
            return form
    return None


def _between_placeholders(begun: str, whole: str) -> ToolForm | None:
    if not whole.startswith(begun):
        return None
    before, found_name, rest = whole[len(begun) :].partition(_NAME)
    between, found_arguments, rest = rest.partition(json.dumps({_KEY: _VALUE}))
    quoted = _RESULT not in rest
    after_call, found_result, after_result = rest.partition(json.dumps(_RESULT)[1:-1] if quoted else _RESULT)
    if not (found_name and found_arguments and found_result and before.strip()):
        return None
    if _NAME in between or _NAME in after_result:
        return None
    return ToolForm(before, between, after_call, after_result, quoted)
