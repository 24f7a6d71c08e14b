"""HTTP requests to one server: kept connections, timeouts, retries, and errors that say what went wrong without keys.

Tried again with growing pauses, or after as long as the server asks for in ``Retry-After`` (RFC 9110, 10.2.3): what
could not be connected, what was cut off before an answer began, and statuses that say "not now". Not tried again: a
server that stays silent for longer than `timeout`, since it may be at work. An answer that breaks off is the caller's
to handle, who knows how much of it is of use.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from sgl_like.errors import (
    ConfigError,
    RemoteAuthenticationError,
    RemoteConnectionError,
    RemoteError,
    RemoteRateLimitError,
    RemoteRequestError,
    RemoteTimeoutError,
)

__all__ = ["BrokenOffError", "Http", "HttpOptions", "error_message", "public_url"]

RETRIED = frozenset({408, 429, 502, 503, 504, 529})
REQUEST_ID_HEADERS = ("x-request-id", "request-id")
LONGEST_PAUSE = 60.0  # seconds; a server that asks for more gets no second request


@dataclass(frozen=True)
class HttpOptions:
    """How to speak to a server.

    Args:
        timeout: seconds without a byte from the server after which a request fails; ``None``: never.
        connect_timeout: seconds that a connection may take.
        max_retries: how often a request that could not be served is tried again.
        max_connections: requests at one time; further ones wait.
        verify: check the server's certificate; a path names a file of certificates to trust.
        headers: sent with every request.
        sleep: waits between tries.
        jitter: a number from 0 to 1 that pauses are varied by, so that clients do not come back all at once.

    Raises:
        ConfigError: a number is out of range.
    """

    timeout: float | None = 600.0
    connect_timeout: float = 10.0
    max_retries: int = 4
    max_connections: int = 100
    verify: bool | str = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        for name, low in (
            ("timeout", 0),
            ("connect_timeout", 0),
            ("max_retries", -1),
            ("max_connections", 0),
        ):
            value = getattr(self, name)
            if value is not None and not value > low:
                raise ConfigError(f"{name} must be greater than {low}, not {value!r}")


class BrokenOffError(RemoteConnectionError):
    """An answer had begun, and ended before its end."""


class Http:
    """Requests to `base_url`. Its coroutines run on the loop of `loop.py`.

    Args:
        base_url: ``http://`` or ``https://`` address, to which paths are appended.
        secrets: texts that never appear in an error, e.g. the API key.
        options: see `HttpOptions`.

    Raises:
        ConfigError: `base_url` is not an address.
    """

    def __init__(self, base_url: str, secrets: tuple[str, ...], options: HttpOptions) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"base_url must be like http://localhost:8000, not {public_url(base_url)!r}")
        self.base_url = base_url.rstrip("/")
        self._secrets = tuple(secret for secret in (*secrets, parts.password) if secret)
        self._options = options
        self._session: aiohttp.ClientSession | None = None

    @property
    def public_url(self) -> str:
        """The base URL without secrets."""
        return public_url(self.base_url)

    async def json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The JSON that the server answers with; text that is not JSON as a string.

        Raises:
            RemoteError: it could not be reached, or answered with an error.
        """
        async with self._opened(method, path, body) as response:
            try:
                text = await response.text()
            except (aiohttp.ClientError, OSError) as error:
                raise self._broken(path, error) from error
        try:
            return json.loads(text)
        except ValueError:
            return text

    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """The bytes of the answer as they arrive.

        Raises:
            RemoteError: as for `json`.
        """
        async with self._opened("POST", path, body) as response:
            try:
                async for chunk in response.content.iter_any():
                    yield chunk
            except (aiohttp.ClientError, OSError) as error:
                raise self._broken(path, error) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _opened(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with status 2xx."""
        for tried in range(self._options.max_retries + 1):
            last = tried == self._options.max_retries
            try:
                response = await self._send(method, path, body)
            except (aiohttp.ClientError, OSError) as error:
                if last or not _worth_another_try(error):
                    raise self._unreachable(path, error) from error
                await self._pause(tried, None)
                continue
            async with response:
                if response.status < 400:
                    yield response
                    return
                failure, pause = await self._failure(path, response), _retry_after(response)
            final = failure.status not in RETRIED or failure.code == "deadline_exceeded"
            if last or final or (pause or 0.0) > LONGEST_PAUSE:
                raise failure
            await self._pause(tried, pause)

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> aiohttp.ClientResponse:
        if self._session is None or self._session.closed:
            options = self._options
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=options.connect_timeout, sock_read=options.timeout
            )
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                headers=dict(options.headers),
                connector=aiohttp.TCPConnector(
                    limit=options.max_connections, ssl=_certificates(options.verify)
                ),
            )
        return await self._session.request(method, self.base_url + path, json=body)

    async def _pause(self, tried: int, asked: float | None) -> None:
        grown = min(0.5 * 2.0**tried, 30.0) * (0.5 + self._options.jitter() / 2)
        await self._options.sleep(max(grown, asked or 0.0))

    async def _failure(self, path: str, response: aiohttp.ClientResponse) -> RemoteError:
        try:
            text = await response.text()
        except (aiohttp.ClientError, OSError, UnicodeDecodeError):
            text = ""
        kind = _KINDS.get(response.status, RemoteRequestError if response.status < 500 else RemoteError)
        request_id = next(
            (response.headers[name] for name in REQUEST_ID_HEADERS if name in response.headers), None
        )
        reason = f"{response.status} {response.reason or ''}".strip()
        error = self.error(kind, path, f"answered {reason}: {_message(text)}", response.status, request_id)
        error.code = _code(text)
        return error

    def _broken(self, path: str, error: BaseException) -> RemoteError:
        if isinstance(error, TimeoutError):
            return self._unreachable(path, error)
        return self.error(BrokenOffError, path, f"broke off: {error or type(error).__name__}")

    def _unreachable(self, path: str, error: BaseException) -> RemoteError:
        if isinstance(error, TimeoutError):
            return self.error(RemoteTimeoutError, path, f"did not answer in time: {error or 'timeout'}")
        return self.error(RemoteConnectionError, path, f"cannot be reached: {error or type(error).__name__}")

    def error(
        self,
        kind: type[RemoteError],
        path: str,
        what: str,
        status: int | None = None,
        request_id: str | None = None,
    ) -> RemoteError:
        """An error about a request to `path`, without the secrets."""
        url = public_url(self.base_url + path)
        for secret in self._secrets:
            what, url = what.replace(secret, "***"), url.replace(secret, "***")
        of = f" (request id {request_id})" if request_id else ""
        return kind(f"{url} {what}{of}", status=status, url=url, request_id=request_id)


_KINDS: Mapping[int, type[RemoteError]] = {
    401: RemoteAuthenticationError,
    403: RemoteAuthenticationError,
    408: RemoteTimeoutError,
    429: RemoteRateLimitError,
}


def public_url(url: str) -> str:
    """`url` without user, password, query and fragment, any of which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _worth_another_try(error: BaseException) -> bool:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.InvalidURL):
        return False
    return not isinstance(error, TimeoutError) or isinstance(error, aiohttp.ConnectionTimeoutError)


def _certificates(verify: bool | str) -> Any:
    if isinstance(verify, bool):
        return verify
    import ssl

    return ssl.create_default_context(cafile=verify)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Seconds that the server asks to wait; a date is taken relative to its own clock."""
    asked = response.headers.get("Retry-After")
    if asked is None:
        return None
    try:
        if asked.strip().isdigit():
            return float(asked)
        now = parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (parsedate_to_datetime(asked) - now).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None


def _message(text: str) -> str:
    """What an error body says, whatever form it has."""
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()[:500] or "(no message)"
    return error_message(found)


def _code(text: str) -> str | None:
    """``error.code`` of an error body that has one."""
    try:
        found = json.loads(text)["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def error_message(found: Any) -> str:
    """The message in a JSON error: ``{"error": {"message"}}``, ``{"error": "..."}``, ``{"detail"}`` and the like."""
    while isinstance(found, dict):
        found = next(
            (found[key] for key in ("error", "message", "detail") if found.get(key)), json.dumps(found)
        )
    return (found if isinstance(found, str) else json.dumps(found))[:500] or "(no message)"
