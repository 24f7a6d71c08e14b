"""Checked reading of ``config.json``: every error says which field, and what it should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sgl_like.errors import ModelLoadError

REQUIRED = object()


class ConfigFields:
    """The fields of a JSON object.

    Args:
        raw: the parsed object.
        path: what stands before the names of its fields in errors, such as ``"rope_scaling."``.

    All methods raise `ModelLoadError` for a value that does not fit. A field that is missing or ``null`` has the
    default, or is an error where there is none.
    """

    def __init__(self, raw: Mapping[str, Any], path: str = "") -> None:
        self._raw = raw
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def error(self, name: str, what: str) -> ModelLoadError:
        """An error about a field, to be raised."""
        return ModelLoadError(f"config.json: {self._path}{name} {what}")

    def value(self, name: str, default: Any = REQUIRED) -> Any:
        """A field as it is."""
        found = self._raw.get(name)
        if found is not None:
            return found
        if default is REQUIRED:
            raise ModelLoadError(f"config.json: {self._path + name!r} is missing")
        return default

    def integer(self, name: str, default: Any = REQUIRED, least: int = 1, most: int = 2**31 - 1) -> int:
        """An integer from `least` to `most`."""
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(name, f"must be an integer of at least {least}, not {value!r}")
        if value > most:
            raise self.error(name, f"must be at most {most}, not {value}")
        return value

    def number(self, name: str, default: Any = REQUIRED) -> float:
        """A finite number greater than 0."""
        value = self.value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise self.error(name, f"must be a number greater than 0, not {value!r}")
        return float(value)

    def optional_number(self, name: str, absent: float | None = None) -> float | None:
        """A number greater than 0, or ``None`` where it is ``null``; `absent` where there is no such field."""
        if name not in self._raw:
            return absent
        return None if self._raw[name] is None else self.number(name)

    def optional_integer(self, name: str, absent: int | None = None) -> int | None:
        """An integer of at least 1, or ``None`` where it is ``null``; `absent` where there is no such field."""
        if name not in self._raw:
            return absent
        return None if self._raw[name] is None else self.integer(name)

    def flag(self, name: str, default: Any = False) -> bool:
        """``true`` or ``false``."""
        value = self.value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def text(self, name: str, default: Any = REQUIRED) -> str:
        """A string."""
        value = self.value(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        """A list of so many numbers greater than 0."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) != length:
            raise self.error(name, f"must be a list of {length} numbers")
        items = ConfigFields({str(i): item for i, item in enumerate(value)}, f"{self._path}{name}.")
        return tuple(items.number(str(i)) for i in range(length))

    def indices(self, name: str) -> frozenset[int]:
        """A list of integers of at least 0; an empty one if there is no such field."""
        value = self.value(name, [])
        if not isinstance(value, list) or any(type(item) is not int or item < 0 for item in value):
            raise self.error(name, f"must be a list of integers of at least 0, not {value!r}")
        return frozenset(value)

    def one_of(self, name: str, known: Mapping[str, str], default: Any = REQUIRED) -> str:
        """What `known` says for a string."""
        value = self.text(name, default)
        if value not in known:
            raise self.error(name, f"{value!r} is not supported; known: {', '.join(known)}")
        return known[value]

    def windows(
        self, layers: int, window: int | None, slides: Callable[[int], bool] = lambda layer: True
    ) -> tuple[int | None, ...]:
        """How far each layer sees: `window` where ``layer_types`` says so, or if there is no such field `slides`."""
        types = self.value("layer_types", None)
        if types is None:
            return tuple(window if slides(layer) else None for layer in range(layers))
        known = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != layers or any(kind not in known for kind in types):
            raise self.error("layer_types", f"must be {layers} times 'full_attention' or 'sliding_attention'")
        if window is None and "sliding_attention" in types:
            raise self.error("sliding_window", "must be a number, since layer_types has 'sliding_attention'")
        return tuple(window if kind == "sliding_attention" else None for kind in types)

    def section(self, *names: str) -> ConfigFields:
        """The object in the first of these fields that is there; an empty one if none is."""
        for name in names:
            value = self.value(name, None)
            if value is None:
                continue
            if not isinstance(value, dict):
                raise self.error(name, f"must be an object, not {value!r}")
            return ConfigFields(value, f"{self._path}{name}.")
        return ConfigFields({}, f"{self._path}{names[0]}.")

    def with_defaults(self, defaults: Mapping[str, Any]) -> ConfigFields:
        """The same fields, and these where one is missing or ``null``."""
        missing = {name: value for name, value in defaults.items() if self._raw.get(name) is None}
        return ConfigFields({**self._raw, **missing}, self._path)

    def subset(self, *names: str) -> dict[str, Any]:
        """Those of these fields that are there."""
        return {name: self._raw[name] for name in names if name in self._raw}

    def without(self, *names: str) -> ConfigFields:
        """All but these fields."""
        return ConfigFields({k: v for k, v in self._raw.items() if k not in names}, self._path)
