"""Errors as clients see them: a status, and a body in the shape of the API that was called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgl_like.errors import (
    ChatTemplateError,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    PromptTooLongError,
    RequestAborted,
    RequestError,
    SglError,
)


class ApiError(Exception):
    """An answer other than success.

    Args:
        status: of HTTP.
        message: for a person; has no paths, addresses or tracebacks in it.
        type: OpenAI's kinds of errors, such as ``"invalid_request_error"``.
        code: a word for programs.
        param: the field of the request that is wrong, as a path: ``"messages[0].role"``.
        retry_after: seconds after which the same request may succeed.
        headers: that the answer has besides.
        close: end the connection after the answer: what the client still sends is not worth reading.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        close: bool = False,
    ) -> None:
        self.status = status
        self.message = message
        self.type = type
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.headers = headers or {}
        self.close = close
        super().__init__(message)


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400."""
    return ApiError(400, message, param=param, code=code)


def unavailable(message: str, retry_after: float = 1.0, code: str = "service_unavailable") -> ApiError:
    """503: it may be sent again."""
    return ApiError(503, message, type="server_error", code=code, retry_after=retry_after)


def api_error(error: BaseException) -> ApiError:
    """What a client is told about an exception. Of those that nobody foresaw, nothing but that there was one."""
    match error:
        case ApiError():
            return error
        case PromptTooLongError():
            return bad_request(str(error), code="context_length_exceeded")
        case RequestError() | ChatTemplateError():
            return bad_request(str(error))
        case DeadlineExceeded():
            return ApiError(504, str(error), type="timeout_error", code="deadline_exceeded")
        case RequestAborted():
            return ApiError(499, str(error), type="aborted", code="request_aborted")
        case EngineUnavailable() | EngineError():
            return unavailable(str(error) if isinstance(error, EngineUnavailable) else "the engine failed")
        case SglError():
            return ApiError(500, "the server failed", type="server_error")
    return ApiError(500, "the server failed", type="server_error")


def openai_body(error: ApiError) -> dict[str, Any]:
    """``{"error": ...}``."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
