"""Errors in Anthropic's shape."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.server.http.errors import ApiError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def anthropic_body(error: ApiError) -> dict[str, Any]:
    """``{"type": "error", "error": {...}}``; also the data of an ``error`` event in a stream."""
    other = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _TYPES.get(error.status, other)
    return {"type": "error", "error": {"type": kind, "message": error.message}}
