"""A finished state as data, and from that data a state that is read like it.

What is kept is what can be read: text, messages, variables with their meta, token counts and what the body returned. A
value that is no plain data is not kept; reading it from a restored state is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sgl_like.errors import ProgramError
from sgl_like.frontend.plain import NotPlainError, decode, encode
from sgl_like.frontend.state import ProgramState
from sgl_like.frontend.variables import Variable
from sgl_like.runtime.protocol import Usage

__all__ = ["restore", "state_data"]


def state_data(state: ProgramState) -> dict[str, Any]:
    """What `restore` needs of a state that has ended without an error; JSON values."""
    interpreter = state._interpreter
    return {
        "text": "".join(interpreter.chunks),
        "messages": interpreter.prompt.messages,
        "variables": [_data(variable) for variable in interpreter.variables.values()],
        "usage": asdict(interpreter.usage),
        "returned": _data(state._returned),
    }


def restore(state: ProgramState, data: Mapping[str, Any]) -> None:
    """Make `state`, which is fresh, the one that `data` is from.

    Raises:
        KeyError, TypeError, AttributeError: `data` is not from `state_data`.
    """
    interpreter = state._interpreter
    program = interpreter.context.program
    interpreter.chunks = [data["text"]]
    interpreter.prompt.messages = [dict(message) for message in data["messages"]]
    for each in data["variables"]:
        interpreter.variables[each["name"]] = _variable(each, program, f"the value of {each['name']!r}")
    interpreter.usage = Usage(**data["usage"])
    state._returned = _variable(data["returned"], program, "what the body returned")
    interpreter.close("the program has ended")


def _data(variable: Variable) -> dict[str, Any]:
    text, value = "".join(variable.chunks), variable.value
    data: dict[str, Any] = {"name": variable.name}
    try:
        data |= {"value": encode(value), "meta": encode(variable.meta)}
    except NotPlainError as error:
        data["lost"] = str(error)
    return data if text == str(value) else {**data, "text": text}


def _variable(data: Mapping[str, Any], program: str, what: str) -> Variable:
    variable = Variable(data["name"])
    if "lost" in data:
        message = f"{program}: {what} is not in the checkpoint: {data['lost']}"
        variable.fail(ProgramError(message, program=program, variable=data["name"]))
        return variable
    value = decode(data["value"])
    variable.chunks = [data.get("text", str(value))]
    variable.finish(value, decode(data["meta"]))
    return variable
