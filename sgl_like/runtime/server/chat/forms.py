"""How calls of functions look in the model's text: as its chat template writes them, or plainly if it does not.

A plain form is explained to the model in the system message, and calls and results are part of ordinary messages:

    system      ... {"type": "function", ...} ... <tool_call>{"name": ..., "arguments": ...}</tool_call>
    assistant   <tool_call>{"name": "f", "arguments": {}}</tool_call>
    user        <tool_response>...</tool_response>
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgl_like.errors import ChatTemplateError
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer
from sgl_like.runtime.tokenizer.tool_form import ToolForm

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CallForm:
    """What stands around the name and the arguments of a call.

    Args:
        trigger: what no text has that is not a call; `begin` starts with it.
        begin: up to the name.
        between: name and arguments.
        end: after the arguments.
        plain: calls and results are no matter of the chat template.
    """

    trigger: str
    begin: str
    between: str
    end: str
    plain: bool = False

    def structure(self, name: str, schema: Any) -> dict[str, Any]:
        """Of a structural tag."""
        return {"begin": f"{self.begin}{name}{self.between}", "schema": schema, "end": self.end}


PLAIN = CallForm("<tool_call>", '<tool_call>{"name": "', '", "arguments": ', "}</tool_call>", plain=True)


def call_form(tokenizer: Tokenizer) -> CallForm:
    """The form for a model.

    Where calls begin with a special token the plain form is taken: constraints are about text, and these are none.
    """
    form = tokenizer.tool_form
    if form is None or any(each in form.before + form.between for each in tokenizer.special_tokens):
        return PLAIN
    begin = form.before[form.before.index(form.trigger) :]
    return CallForm(form.trigger, begin, form.between, _end(form, tokenizer))


def _end(form: ToolForm, tokenizer: Tokenizer) -> str:
    """What of the text between arguments and result the model writes: up to the end of its turn."""
    stops = list(tokenizer.special_tokens)
    with contextlib.suppress(ChatTemplateError):
        stops.append(tokenizer.role_affixes([{"role": "user", "content": ""}], "assistant")[1].strip())
    end = form.after_call
    for stop in stops:
        if stop:
            end = end.partition(stop)[0]
    return end.rstrip()


def plain_messages(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation with calls and results as text, and with what the model has to know of `tools`."""
    found: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            text = f"<tool_response>{message['content']}</tool_response>"
            if found and found[-1].get("results"):
                found[-1] = {**found[-1], "content": f"{found[-1]['content']}\n{text}"}
            else:
                found.append({"role": "user", "content": text, "results": True})
        elif message.get("tool_calls"):
            calls = "\n".join(_written(call) for call in message["tool_calls"])
            content = message.get("content") or ""
            found.append({"role": "assistant", "content": f"{content}\n{calls}" if content else calls})
        else:
            found.append(message)
    found = [{key: each[key] for key in each if key != "results"} for each in found]
    if not tools:
        return found
    about = _explanation(tools)
    if found and found[0]["role"] == "system":
        return [{**found[0], "content": f"{found[0]['content']}\n\n{about}"}, *found[1:]]
    return [{"role": "system", "content": about}, *found]


def _written(call: Mapping[str, Any]) -> str:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return f"{PLAIN.begin}{function['name']}{PLAIN.between}{arguments}{PLAIN.end}"


def _explanation(tools: Sequence[Mapping[str, Any]]) -> str:
    described = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    return (
        "These functions can be called:\n"
        f"{described}\n"
        'To call one, write <tool_call>{"name": its name, "arguments": an object}</tool_call>.'
    )
