"""`sgl-like serve`. Its options are made of the fields of `ServerConfig`, `EngineConfig` and `Limits`, with what their
docstrings say as help, so that there is one place for each.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import typer
from rich.console import Console

from sgl_like.cli.failures import one_line_errors
from sgl_like.errors import ConfigError
from sgl_like.runtime.config import EngineConfig
from sgl_like.runtime.server.config import ServerConfig, StubConfig
from sgl_like.runtime.server.limits import Limits

_NAMES = {"api_keys": "--api-key", "metrics_compat": "--metrics-compat"}
_VARIABLES = {"api_keys": "SGL_LIKE_API_KEY", "admin_key": "SGL_LIKE_ADMIN_KEY"}
_APART = frozenset({"engine", "limits", "stub"})
_SHORT = {"queue_requests": "--max-queue"}
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_KEYS = frozenset({"api_keys"})  # an empty one is a mistake; elsewhere it stands for none
_SIZES = frozenset({"kv_cache_memory", "cache_dir_bytes"})


def _run(given: Mapping[str, Any]) -> None:
    with one_line_errors(Console(stderr=True)):
        config = config_of(given)
        from sgl_like.runtime.server.main import serve

        serve(config)


def config_of(given: Mapping[str, Any]) -> ServerConfig:
    """The options of a server, from those of the command line: what is left out or ``None`` has its default.

    Raises:
        ConfigError: one cannot be used.
    """
    parts: dict[str, dict[str, Any]] = {"server": {}, "limits": {}, "engine": {}, "stub": {}}
    for name, value in given.items():
        if value is None or value == []:
            continue
        part, _, field = name.partition("__")
        if field in _SIZES:
            value = _bytes(field, value)
        elif isinstance(value, list):
            value = tuple(item for items in value for item in items.split(",") if item or field in _KEYS)
        parts[part][field] = value
    try:
        limits = Limits(**parts["limits"])
        EngineConfig.from_options(parts["engine"])
        stub = StubConfig(**parts["stub"])
        return ServerConfig(**parts["server"], limits=limits, engine=parts["engine"], stub=stub)
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from None


def _bytes(name: str, text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ConfigError(f"{name} must be a number of bytes, such as 512M or 4G, not {text!r}")
    return int(float(found[1]) * _UNITS.get(found[2].lower(), 1))


def _parameters() -> Iterator[inspect.Parameter]:
    yield from _of(ServerConfig, "server", "", "Server", skip=_APART)
    yield from _of(EngineConfig, "engine", "", "Engine")
    yield from _of(Limits, "limits", "limit-", "Limits")
    yield from _of(StubConfig, "stub", "stub-", "With --engine-kind stub")


def _of(
    kind: type[Any], part: str, prefix: str, panel: str, skip: frozenset[str] = frozenset()
) -> Iterator[inspect.Parameter]:
    hints, words = get_type_hints(kind), field_words(kind)
    for field in fields(kind):
        if field.name in skip:
            continue
        flag = _NAMES.get(field.name) or _SHORT.get(field.name) or f"--{prefix}{_dashes(field.name)}"
        option = typer.Option(
            *(
                [flag, f"--no-{prefix}{_dashes(field.name)}"]
                if hints[field.name] is bool and field.default
                else [flag]
            ),
            help=f"{words[field.name]}{_default(field)}",
            rich_help_panel=panel,
            envvar=_VARIABLES.get(field.name),
            show_envvar=True,
            show_default=False,
        )
        yield inspect.Parameter(
            f"{part}__{field.name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[_typed(field.name, hints[field.name]), option],
        )


def _dashes(name: str) -> str:
    return name.replace("_", "-")


def _default(field: Field[Any]) -> str:
    default = field.default
    if default is MISSING or default is None or default == () or isinstance(default, bool):
        return ""
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" Default: {shown}."


def _typed(name: str, hint: Any) -> Any:
    """The type of an option: optional, as without it the field has its default."""
    if name in _SIZES:
        return str | None
    arms = [arm for arm in get_args(hint) if arm is not type(None)] if _is_union(hint) else [hint]
    kind = str if Path in arms else arms[0]
    return list[str] | None if get_origin(kind) is tuple else kind | None


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def field_words(kind: type[Any]) -> dict[str, str]:
    """What the ``Args:`` of a class's docstring say about each of its fields; "" for those that have no entry."""
    found = {field.name: "" for field in fields(kind)}
    doc = inspect.cleandoc(kind.__doc__ or "")
    _, _, args = doc.partition("Args:\n")
    for entry in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", args.partition("\n\n")[0], re.MULTILINE):
        name, text = entry
        if name in found:
            text = " ".join(text.split()).replace("``", "").replace("`", "")
            found[name] = text[:1].upper() + text[1:]
    return found


def _command() -> Callable[..., None]:
    def serve(**given: Any) -> None:
        _run(given)

    parameters = list(_parameters())
    serve.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    serve.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    serve.__doc__ = (
        "Serve a model over HTTP: OpenAI's API and those of SGLang, Anthropic and Ollama.\n\n"
        "Without options the embedded model, at http://127.0.0.1:30000, to this machine only. SIGTERM ends it when "
        "what runs has ended, or after --grace seconds."
    )
    return serve


serve = _command()
