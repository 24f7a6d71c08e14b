"""A finished state as data, and from that data a state that is read like it.

What is kept is what can be read: text, messages, variables with their meta, token counts and what the body returned. A
value that is no plain data is not kept; reading it from a restored state is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sgl_like.errors import OutputError, ProgramError
from sgl_like.frontend.output_types import OutputType
from sgl_like.frontend.partial import NOTHING
from sgl_like.frontend.plain import NotPlainError, decode, encode
from sgl_like.frontend.state import ProgramState
from sgl_like.frontend.values import GenText
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
        outputs = value if isinstance(value, list) else [value]
        if outputs and all(isinstance(output, GenText) for output in outputs):
            data["outputs"] = [_output_data(output, variable.meta) for output in outputs]
    except NotPlainError as error:
        data["lost"] = str(error)
    return data if text == str(value) else {**data, "text": text}


def _output_data(output: GenText, meta: Any) -> dict[str, Any]:
    """What is known about an output besides its text, and besides the `meta` of its variable."""
    own = None if output.meta == meta else encode(dict(output.meta))
    return {"token_ids": list(output.token_ids), "meta": own, "typed": output.is_typed}


def _variable(data: Mapping[str, Any], program: str, what: str) -> Variable:
    variable = Variable(data["name"])
    if "lost" in data:
        message = f"{program}: {what} is not in the checkpoint: {data['lost']}"
        variable.fail(ProgramError(message, program=program, variable=data["name"]))
        return variable
    value, meta = decode(data["value"]), decode(data["meta"])
    variable.streams = [[data.get("text", str(value))]]
    if "outputs" in data:
        texts = value if isinstance(value, list) else [value]
        outputs = [_output(*each, meta, what) for each in zip(texts, data["outputs"], strict=True)]
        value = outputs if isinstance(value, list) else outputs[0]
        if meta is not None:  # not of a join
            variable.streams = [[output] for output in outputs]
    variable.finish(value, meta)
    return variable


def _output(text: str, data: Mapping[str, Any], meta: Any, what: str) -> GenText:
    own = meta if data["meta"] is None else decode(data["meta"])
    return GenText(text, data["token_ids"], own, _Forgotten(what) if data["typed"] else None)


class _Forgotten(OutputType):
    """Of a gen that had a type: its text is kept, and the type is not."""

    def __init__(self, what: str) -> None:
        self._what = what

    def parse(self, text: str) -> Any:
        """See `OutputType.parse`."""
        raise OutputError(
            f"{self._what} was read from a checkpoint, which keeps its text and not its type: read the text again, e.g."
            " with pydantic's TypeAdapter(T).validate_json(text)"
        )

    def parse_partial(self, text: str) -> Any:
        """See `OutputType.parse_partial`."""
        return NOTHING
