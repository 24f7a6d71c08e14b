"""Errors in Ollama's shape."""

from __future__ import annotations

from typing import Any

from sgl_like.runtime.server.http.errors import ApiError


def ollama_body(error: ApiError) -> dict[str, Any]:
    """``{"error": "..."}``; also the last line of a stream that failed."""
    return {"error": error.message}
