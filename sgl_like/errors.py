"""Every public exception of sgl_like, in one tree.

    SglError
    ├── ConfigError                 an engine option or a command-line value cannot be used (also a ValueError)
    ├── ModelLoadError              a model folder is missing something, damaged, or of an unknown architecture
    ├── RequestError                a request cannot be run as asked (also a ValueError)
    │   ├── SamplingParamsError     a sampling parameter is out of range or of the wrong type
    │   ├── PromptTooLongError      prompt plus output cannot fit the context or the KV pool, ever
    │   ├── ReplayError             a call that is replayed was not recorded; says what the nearest one was
    │   └── ConstraintError         a regex, schema or grammar cannot be enforced
    │       ├── UnsupportedSchemaError   names the keyword and its JSON pointer
    │       └── ConstraintTooComplex     a limit on size, depth or states was reached
    ├── EngineError                 the engine cannot serve
    │   ├── EngineClosedError       the engine was shut down before or while the request ran
    │   ├── EngineUnavailable       a server's engine is starting, or has died; the request may be sent again
    │   ├── RequestAborted          the request was cancelled by its owner
    │   ├── DeadlineExceeded        the request was not done by its deadline (also a TimeoutError)
    │   └── RemoteError             another engine's server failed, or refused; says which, and what it said
    │       ├── RemoteConnectionError      it cannot be reached, or broke off
    │       ├── RemoteTimeoutError         it did not answer in time
    │       ├── RemoteAuthenticationError  the API key is missing or not accepted
    │       ├── RemoteRateLimitError       too many requests, or the quota is used up
    │       └── RemoteRequestError         it does not take the request as it is (also a RequestError)
    ├── ChatTemplateError           no template, an unknown role, or a template that fails to render
    ├── OutputError                 an output cannot be read as the type it should have (also a ValueError)
    │   └── ValidationError         every attempt of a gen was refused by its ``validate``
    ├── ToolError                   a function that the model called has failed; names it and its arguments
    ├── DataError                   an input file or a checkpoint cannot be used; says file, line and column, or row
    └── ProgramError                a program failed; chained to its cause, names program, node and variable
        └── TraceError              a trace needs a value that only a run would know; says which, and how to give it

Messages say what is wrong, where, and what to do about it; they are made to be shown to a person.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ChatTemplateError",
    "ConfigError",
    "ConstraintError",
    "ConstraintTooComplex",
    "DataError",
    "DeadlineExceeded",
    "EngineClosedError",
    "EngineError",
    "EngineUnavailable",
    "ModelLoadError",
    "OutputError",
    "ProgramError",
    "PromptTooLongError",
    "RemoteAuthenticationError",
    "RemoteConnectionError",
    "RemoteError",
    "RemoteRateLimitError",
    "RemoteRequestError",
    "RemoteTimeoutError",
    "ReplayError",
    "RequestAborted",
    "RequestError",
    "SamplingParamsError",
    "SglError",
    "ToolError",
    "TraceError",
    "UnsupportedSchemaError",
    "ValidationError",
]


class SglError(Exception):
    """Base of every error that sgl_like raises on purpose."""


class ConfigError(SglError, ValueError):
    """An engine option or a command-line value cannot be used."""


class ModelLoadError(SglError):
    """A model folder is missing something, is damaged, or has an unknown architecture."""


class RequestError(SglError, ValueError):
    """A request cannot be run as asked; it never reached the step loop."""


class SamplingParamsError(RequestError):
    """A sampling parameter is unknown, out of range or of the wrong type."""


class PromptTooLongError(RequestError):
    """The prompt and its output cannot fit the context window or the KV pool, even alone."""


class ReplayError(RequestError):
    """A call was made that is not in the recording being replayed. The message has the nearest one that is."""


class ConstraintError(RequestError):
    """A regex, schema or grammar cannot be compiled."""


class UnsupportedSchemaError(ConstraintError):
    """A JSON Schema keyword cannot be enforced, or has a value that the specification forbids.

    Args:
        keyword: the keyword, e.g. ``"uniqueItems"``.
        pointer: JSON pointer (RFC 6901) to it within the schema, e.g. ``"/properties/tags/uniqueItems"``.
        reason: what about it cannot be done.
    """

    def __init__(self, keyword: str, pointer: str, reason: str = "is not supported") -> None:
        self.keyword = keyword
        self.pointer = pointer
        self.reason = reason
        super().__init__(f"JSON Schema keyword {keyword!r} at {pointer or '/'!r} {reason}")


class ConstraintTooComplex(ConstraintError):
    """A constraint went over a limit on size, depth or number of states."""


class EngineError(SglError):
    """The engine cannot serve the request."""


class EngineClosedError(EngineError):
    """The engine was shut down before the request could finish."""


class EngineUnavailable(EngineError):
    """A server has no engine that is ready, or the one that ran the request has died; it may be sent again."""


class RequestAborted(EngineError):
    """The request was cancelled by its owner."""


class DeadlineExceeded(EngineError, TimeoutError):
    """The request had not ended when its deadline (`GenerateRequest.deadline`) had passed."""


class RemoteError(EngineError):
    """Another engine's server failed, or refused.

    Args:
        message: what happened, with the address and what the server said; never an API key.
        status: the HTTP status, if there was an answer.
        url: the address, without user, password and query.
        request_id: the server's name for the request, for its maker's support.
        code: the server's word for what went wrong, if it has one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        url: str = "",
        request_id: str | None = None,
        code: str | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.url = url
        self.request_id = request_id
        super().__init__(message)


class RemoteConnectionError(RemoteError):
    """The server cannot be reached, or broke off in the middle of an answer."""


class RemoteTimeoutError(RemoteError):
    """The server did not answer in time."""


class RemoteAuthenticationError(RemoteError):
    """The API key is missing or not accepted."""


class RemoteRateLimitError(RemoteError):
    """Too many requests, or the quota is used up."""


class RemoteRequestError(RemoteError, RequestError):
    """The server does not take the request as it is; to send it again would not help."""


class ChatTemplateError(SglError, ValueError):
    """There is no chat template, it does not know the role, or it fails to render."""


class OutputError(SglError, ValueError):
    """An output cannot be read as its type: it was cut, it breaks a rule of the type, or it has none."""


class ValidationError(OutputError):
    """Every attempt of a gen was refused.

    Args:
        refused: text and reason of each attempt, the first one first.
    """

    def __init__(self, refused: Sequence[tuple[str, str]]) -> None:
        self.refused = tuple(refused)
        attempts = "; ".join(
            f"attempt {number} {_shortened(text)!r}: {_shortened(reason)}"
            for number, (text, reason) in enumerate(self.refused, 1)
        )
        count = len(self.refused)
        super().__init__(f"the output was refused {count} time{'s' if count > 1 else ''}: {attempts}")


class ToolError(SglError):
    """A function that the model called has failed. ``__cause__`` is what it raised."""


class DataError(SglError, ValueError):
    """An input file or a checkpoint cannot be used; the message names file, line and column, or row, where known."""


class ProgramError(SglError):
    """A program failed. ``__cause__`` is the error that made it fail.

    Args:
        message: one line: what failed.
        program: name of the ``@function``.
        node: what was running, e.g. ``"gen('person')"``.
        variable: the variable that has no value because of it, if one was being read.
        prompt_tail: the end of the prompt at that point.
    """

    def __init__(
        self,
        message: str,
        *,
        program: str | None = None,
        node: str | None = None,
        variable: str | None = None,
        prompt_tail: str = "",
    ) -> None:
        self.program = program
        self.node = node
        self.variable = variable
        self.prompt_tail = prompt_tail
        super().__init__(message)


class TraceError(ProgramError):
    """A program asked, while it was traced, for a value that only a run would know.

    Args:
        message: what was asked of which value, and how to give it one.
        program: name of the ``@function``.
        variable: the value: an argument, a variable, or something made of one.
        line: of the user's code, if known.
    """

    def __init__(
        self,
        message: str,
        *,
        program: str | None = None,
        variable: str | None = None,
        line: int | None = None,
    ) -> None:
        self.line = line
        super().__init__(message, program=program, variable=variable)


def _shortened(text: str, length: int = 100) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
