"""Functions that the model may call: what it is told of them, and what happens when it calls one.

A function's signature, type hints and docstring become a name, a description and a JSON Schema of its arguments
(pydantic makes it); the model's arguments are held to the schema, read as the types of the hints, and the function is
called once.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any, Literal, NotRequired, get_args, get_type_hints

from sgl_like.errors import SamplingParamsError, ToolError
from sgl_like.frontend.outputs.adapters import adapter, json_schema, problems
from sgl_like.frontend.tools.user_code import called

__all__ = ["Tool", "ToolCall", "ToolUse", "make_tool", "make_tool_use", "make_tools"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*")
_GOOGLE = re.compile(r"(?P<indent>\s+)(?P<name>\w+)\s*(\([^)]*\))?:\s*(?P<text>.*)")
_SPHINX = re.compile(r":param\s+([^:]*\s)?(?P<name>\w+):\s*(?P<text>.*)")
DEFAULT_ROUNDS = 8


@dataclass(frozen=True)
class ToolCall:
    """One call of a function by the model.

    Args:
        id: of the call, unique within its answer.
        name: of the function.
        arguments: as the model wrote them, a JSON object.
        result: what the function returned; ``None`` if it failed.
        error: what went wrong, if something did.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]
    result: Any = None
    error: ToolError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The call and its result as the model sees it, for ``meta``."""
        return {"id": self.id, "name": self.name, "arguments": dict(self.arguments), "result": self.shown}

    @property
    def shown(self) -> str:
        """The result as the model sees it: a str as it is, other values as JSON, an error as a sentence."""
        if self.error is not None:
            return f"Error: {self.error}"
        if isinstance(self.result, str):
            return self.result
        from pydantic_core import to_json

        return to_json(self.result, fallback=str).decode()


@dataclass(frozen=True)
class Tool:
    """A function with what the model is told of it.

    Args:
        name: of the function.
        description: from its docstring.
        parameters: JSON Schema of its arguments, an object.
        function: plain or a coroutine function.
        arguments_type: what pydantic reads the arguments as, a TypedDict.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any]
    arguments_type: Any = field(repr=False)

    @property
    def definition(self) -> dict[str, Any]:
        """The function in OpenAI's format."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    def call(self, text: str, call_id: str) -> ToolCall:
        """Call the function, once, with the arguments of `text`. Not for the executor's thread; does not raise."""
        from pydantic import ValidationError

        arguments: dict[str, Any] = {}
        try:
            arguments = json.loads(text)
            values = called(adapter(self.arguments_type).validate_json, text)
            return ToolCall(call_id, self.name, arguments, called(self.function, **values))
        except ValidationError as invalid:
            return self._failed(arguments, call_id, invalid, problems(invalid))
        except Exception as error:
            return self._failed(arguments, call_id, error, f"{type(error).__name__}: {error}")

    def _failed(self, arguments: dict[str, Any], call_id: str, cause: Exception, what: str) -> ToolCall:
        error = ToolError(f"{self.name}({json.dumps(arguments, ensure_ascii=False)}): {what}")
        error.__cause__ = cause
        return ToolCall(call_id, self.name, arguments, error=error)


@dataclass(frozen=True)
class ToolUse:
    """How a gen uses tools.

    Args:
        tools: those it may call, by name.
        forced: whether it begins with a call.
        max_rounds: most calls.
        on_error: ``"return"``: the model sees what went wrong; ``"raise"``: the program fails.
    """

    tools: Mapping[str, Tool]
    forced: bool
    max_rounds: int
    on_error: Literal["return", "raise"]


def make_tool(function: Any) -> Tool:
    """The tool that a function is.

    Raises:
        SamplingParamsError: it is no function with a name, takes ``*args``, ``**kwargs`` or positional-only arguments,
            or has a parameter of a type of which there is no JSON Schema.
    """
    if isinstance(function, Tool):
        return function
    try:
        return _made_tool(function)
    except TypeError as error:
        raise SamplingParamsError(f"tools: a function is needed, not {function!r}") from error


@lru_cache(maxsize=256)  # a program names its tools on every run
def _made_tool(function: Any) -> Tool:
    name = getattr(function, "__name__", "")
    if not callable(function) or isinstance(function, type) or not _NAME.fullmatch(name):
        raise SamplingParamsError(f"tools: a function with a name is needed, not {function!r}")
    description, texts = _documentation(inspect.getdoc(function) or "")
    try:
        signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        raise SamplingParamsError(f"tools: the signature of {name} cannot be read: {error}") from error
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SamplingParamsError(
                f"tools: {name} has a parameter {parameter} that has no name for the model"
            )
        fields[parameter.name] = _field(hints.get(parameter.name, Any), parameter, texts.get(parameter.name))
    arguments_type = _typed_dict(name, fields)
    try:
        return Tool(name, description, json_schema(arguments_type), function, arguments_type)
    except SamplingParamsError as error:
        raise SamplingParamsError(f"tools: {error}") from error


def make_tools(functions: Any) -> list[Tool]:
    """The tools that a list of functions is.

    Raises:
        SamplingParamsError: as for `make_tool`; or there are none, or two of one name.
    """
    if isinstance(functions, str | Mapping) or not isinstance(functions, Iterable):
        raise SamplingParamsError(f"tools must be a list of functions, not {functions!r}")
    made = [make_tool(each) for each in functions]
    if not made or len({tool.name for tool in made}) < len(made):
        raise SamplingParamsError("tools must be functions of different names, and at least one")
    return made


def make_tool_use(tools: Any, choice: Any, max_rounds: Any, on_error: Any) -> ToolUse | None:
    """How a gen with these arguments uses tools; ``None`` without any.

    Raises:
        SamplingParamsError: an argument is of the wrong type or says what cannot be.
    """
    if tools is None:
        if choice is not None or max_rounds is not None:
            raise SamplingParamsError("tool_choice and max_tool_rounds need tools")
        return None
    by_name = {tool.name: tool for tool in make_tools(tools)}
    rounds = DEFAULT_ROUNDS if max_rounds is None else max_rounds
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise SamplingParamsError(f"max_tool_rounds must be at least 1, not {max_rounds!r}")
    if on_error not in ("return", "raise"):
        raise SamplingParamsError(f'on_tool_error must be "return" or "raise", not {on_error!r}')
    if choice not in (None, "auto", "required", *by_name):
        names = ", ".join(map(repr, by_name))
        raise SamplingParamsError(f'tool_choice must be "auto", "required" or one of {names}, not {choice!r}')
    if choice in by_name:
        by_name = {choice: by_name[choice]}
    return ToolUse(by_name, choice not in (None, "auto"), rounds, on_error)


def _field(annotation: Any, parameter: inspect.Parameter, text: str | None) -> Any:
    """What the TypedDict of the arguments has for a parameter; one that has a default may be left out."""
    from pydantic import Field
    from pydantic.fields import FieldInfo

    described = any(
        isinstance(each, FieldInfo) and each.description for each in get_args(annotation)[1:]
    ) and hasattr(annotation, "__metadata__")
    if text and not described:
        annotation = Annotated[annotation, Field(description=text)]
    return annotation if parameter.default is parameter.empty else NotRequired[annotation]


def _typed_dict(name: str, fields: Mapping[str, Any]) -> Any:
    from typing_extensions import TypedDict

    make: Any = TypedDict
    made = make(name, dict(fields))
    made.__pydantic_config__ = {"extra": "forbid"}
    return made


def _documentation(docstring: str) -> tuple[str, dict[str, str]]:
    """The description, and that of each parameter, of a docstring in Google's or Sphinx's style."""
    lines: list[str] = []
    texts: dict[str, str] = {}
    section, last, indent = "", "", ""
    for line in docstring.splitlines():
        heading, sphinx = _SECTION.fullmatch(line), _SPHINX.fullmatch(line.strip())
        if heading:
            section, last = heading[1], ""
        elif sphinx:
            section, last = "Sphinx", sphinx["name"]
            texts[last] = sphinx["text"]
        elif (
            section in ("Args", "Arguments", "Parameters")
            and (entry := _GOOGLE.fullmatch(line))
            and entry["indent"] == (indent := indent or entry["indent"])
        ):
            last = entry["name"]
            texts[last] = entry["text"]
        elif last and line.startswith(" "):
            texts[last] += " " + line.strip()
        elif not section:
            lines.append(line)
    return "\n".join(lines).strip(), {name: text.strip() for name, text in texts.items()}
