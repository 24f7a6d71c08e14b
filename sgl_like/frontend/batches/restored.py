"""A finished state as data, and from that data a state that is read like it.

What is kept is what can be read: text, messages, variables with their meta, token counts and what the body returned. A
value that is no plain data is not kept; reading it from a restored state is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sgl_like.errors import OutputError, ProgramError
from sgl_like.frontend.batches.plain import NotPlainError, decode, encode
from sgl_like.frontend.batches.type_names import type_data, type_named
from sgl_like.frontend.outputs.output_types import DtypeOutput, JsonOutput, OutputType
from sgl_like.frontend.outputs.partial import NOTHING
from sgl_like.frontend.outputs.values import GenText
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
        "variables": [_data(name, variable) for name, variable in interpreter.variables.items()],
        "usage": asdict(interpreter.usage),
        "returned": _data(None, state._returned),
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


def _data(name: str | None, variable: Variable) -> dict[str, Any]:
    text, value = "".join(variable.chunks), variable.value
    data: dict[str, Any] = {"name": name}
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
    return {"token_ids": list(output.token_ids), "meta": own, "type": _type_data(output.output_type)}


def _type_data(output_type: OutputType | None) -> Any:
    if isinstance(output_type, DtypeOutput):
        return {"dtype": output_type.dtype}
    try:
        return {"json": type_data(output_type.annotation)} if isinstance(output_type, JsonOutput) else None
    except NotPlainError as error:
        return {"lost": str(error)}


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
            variable.output_type = outputs[0].output_type
    variable.finish(value, meta)
    return variable


def _output(text: str, data: Mapping[str, Any], meta: Any, what: str) -> GenText:
    own = meta if data["meta"] is None else decode(data["meta"])
    return GenText(text, data["token_ids"], own, _output_type(data["type"], what))


def _output_type(data: Any, what: str) -> OutputType | None:
    if data is None:
        return None
    if "dtype" in data:
        return DtypeOutput(data["dtype"])
    try:
        return _Lost(what, data["lost"]) if "lost" in data else JsonOutput(True, type_named(data["json"]))
    except NotPlainError as error:
        return _Lost(what, str(error))


class _Lost(OutputType):
    """Of a gen whose type cannot be found again: its text is there, its value is not."""

    def __init__(self, what: str, why: str) -> None:
        self._message = f"{what} comes from a checkpoint, and is there as text only: {why}"

    def parse(self, text: str) -> Any:
        """See `OutputType.parse`."""
        raise OutputError(self._message)

    def parse_partial(self, text: str) -> Any:
        """See `OutputType.parse_partial`."""
        return NOTHING
