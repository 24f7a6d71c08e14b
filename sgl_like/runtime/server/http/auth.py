"""Who calls: API keys, and what the caller of a route has to be.

Only digests of keys are kept. All of them are compared in constant time, without leaving early, so that how long an
answer takes tells nothing about any key. A key comes as a bearer token, as ``x-api-key``, or as the password of HTTP's
basic scheme, which is how browsers ask for it.

Every key has a namespace of its own in the prefix cache, made of the key itself: nobody can find out by timing what
others have sent, and a key finds its prefixes again after a restart.

Without keys, a server listens on this machine only, and everybody on it may call, but for web pages of other origins: a
browser would send their requests here too. `Host` is checked against names that were made to point here.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from sgl_like.errors import ConfigError
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Access, Tenant
from sgl_like.runtime.server.quota import Quota

_NAMES = ("max_requests", "requests_per_minute", "tokens_per_minute")


class Key(NamedTuple):
    """An API key that may call.

    Args:
        secret: the key itself.
        name: for logs.
        quota: what it may use.
    """

    secret: str
    name: str
    quota: Quota


def read_keys(config: ServerConfig) -> list[Key]:
    """All keys of a server's options and of its file.

    Raises:
        ConfigError: the file cannot be read, or two keys have the same name.
    """
    default = Quota(config.key_max_requests, config.key_requests_per_minute, config.key_tokens_per_minute)
    keys = [Key(secret, f"key{i}", default) for i, secret in enumerate(config.api_keys, 1)]
    if config.api_key_file is not None:
        keys += _read_file(Path(config.api_key_file), default)
    if any(not key.secret for key in keys) or config.admin_key == "":
        raise ConfigError("an API key is empty")
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1 or name in ("admin", "default"):
            raise ConfigError(f"the name {name!r} of an API key is taken")
    return keys


def read_admin_key(config: ServerConfig) -> str | None:
    """The admin key, from the options or its file; blanks and line breaks around it do not count.

    Raises:
        ConfigError: the file cannot be read or is empty, or there are both.
    """
    if config.admin_key_file is None:
        return config.admin_key
    where = f"admin_key_file={str(config.admin_key_file)!r}"
    if config.admin_key is not None:
        raise ConfigError(f"there is an admin_key and {where}; one of them is enough")
    try:
        key = Path(config.admin_key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read: {error}") from None
    if not key:
        raise ConfigError(f"{where} is empty")
    return key


def _read_file(path: Path, default: Quota) -> list[Key]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_key_file={str(path)!r} cannot be read: {error}") from None
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            keys.append(_read_line(words, f"{path.name}, line {number}", number, default))
    return keys


def _read_line(words: Sequence[str], where: str, number: int, default: Quota) -> Key:
    name, quota = f"line{number}", default
    for word in words[1:]:
        option, _, value = word.partition("=")
        if option == "name" and value:
            name = value
        elif option in _NAMES and value.isdecimal() and int(value) > 0:
            quota = quota._replace(**{option: int(value)})
        else:
            raise ConfigError(
                f"{where}: {option!r} must be name=WORD or one of {', '.join(_NAMES)} with a number above 0"
            )
    return Key(words[0], name, quota)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _namespace(key: str) -> str:
    return hmac.new(key.encode(), b"sgl_like prefix cache", hashlib.sha256).hexdigest()[:32]


class Auth:
    """Checks callers.

    Args:
        config: for its host, origins and admin key.
        keys: of the users.
    """

    def __init__(self, config: ServerConfig, keys: Sequence[Key]) -> None:
        self.keyed = bool(keys)
        self._tenants = [
            (_digest(key.secret), Tenant(key.name, _namespace(key.secret), quota=key.quota)) for key in keys
        ]
        admin_key = read_admin_key(config)
        self._has_admin = admin_key is not None
        if admin_key is not None:
            admin = Tenant("admin", _namespace(admin_key), admin=True)
            self._tenants.append((_digest(admin_key), admin))
        self._origins = frozenset(config.cors_origins)
        self._checks_host = not self.keyed and _is_loopback(config.host)

    def caller(self, http: web.Request, access: Access) -> Tenant:
        """Who calls a route that is for `access`.

        Raises:
            ApiError: 401: a key is missing or unknown; 403: it is not enough, or a web page has no business here.
        """
        presented = _presented(http)
        tenant = None if presented is None else self.find(presented)
        if tenant is not None and _is_basic(http):  # a browser sends that key by itself, whichever page asks
            self._check_browser(http)
        if access == "open":
            return tenant or Tenant()
        if access == "user" and self.keyed:
            if tenant is None:
                raise _unauthorized(http, presented)
            return tenant
        if access == "admin" and (self._has_admin or self.keyed):
            if tenant is None:
                raise _unauthorized(http, presented)
            if not tenant.admin:
                raise ApiError(403, "this needs the admin key", type="permission_error", code="forbidden")
            return tenant
        self._check_browser(http)
        if access == "admin" and not is_local(http):
            raise ApiError(
                403, "without an admin key, only this machine may", type="permission_error", code="forbidden"
            )
        return tenant or Tenant(admin=not self._has_admin)

    def find(self, presented: str) -> Tenant | None:
        """Whose key it is."""
        digest, found = _digest(presented), None
        for known, tenant in self._tenants:
            if hmac.compare_digest(digest, known):
                found = tenant
        return found

    def allowed_origin(self, http: web.Request) -> str | None:
        """The request's origin, if pages of it may read the answers."""
        origin = http.headers.get("Origin")
        if origin is None or not self._origins:
            return None
        return origin if origin in self._origins or "*" in self._origins else None

    def _check_browser(self, http: web.Request) -> None:
        host = http.headers.get("Host", "")
        if self._checks_host and host and not _is_loopback(_host_name(host)):
            raise ApiError(
                403, "this host name is not this server's", type="permission_error", code="bad_host"
            )
        origin = http.headers.get("Origin")
        if origin is None or self.allowed_origin(http) is not None:
            return
        try:
            same = urlsplit(origin).netloc == host
        except ValueError:
            same = False
        if not same:
            raise ApiError(
                403, "pages of this origin may not call", type="permission_error", code="bad_origin"
            )


def _presented(http: web.Request) -> str | None:
    scheme, _, key = http.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if scheme.lower() == "basic":
        try:
            return b64decode(key, validate=True).decode().partition(":")[2] or None
        except ValueError:
            return None
    return http.headers.get("x-api-key")


def _is_basic(http: web.Request) -> bool:
    return http.headers.get("Authorization", "").lower().startswith("basic ")


def _unauthorized(http: web.Request, presented: str | None) -> ApiError:
    """What a browser shows for the page asks for a password then: the key, whatever the user's name."""
    what = "an API key is needed, as 'Authorization: Bearer ...'" if presented is None else "unknown API key"
    code = None if presented is None else "invalid_api_key"
    asks = "text/html" in http.headers.get("Accept", "")
    scheme = 'Basic realm="sgl_like: the API key is the password"' if asks else "Bearer"
    return ApiError(401, what, type="authentication_error", code=code, headers={"WWW-Authenticate": scheme})


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_local(http: web.Request) -> bool:
    """Whether the caller is on this machine, and not merely a proxy of it."""
    if "X-Forwarded-For" in http.headers or "Forwarded" in http.headers:
        return False
    return _is_loopback(http.remote or "")
