"""Sampling parameters of one request, under SGLang's names, checked when they are made.

Nothing here knows a tokenizer or a model: what needs one (stop strings to tokens, compiling a schema) is done
by the engine when the request is submitted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from sgl_like.errors import SamplingParamsError

MAX_STOPS = 16
MAX_STOP_BYTES = 1024
CONSTRAINTS = ("regex", "json_schema", "ebnf", "structural_tag")
_ALIASES = {"max_tokens": "max_new_tokens", "sampling_seed": "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample one request.

    Args:
        max_new_tokens: most tokens to produce, forced ones included.
        temperature: 0 is greedy. Greater values flatten the distribution.
        top_p: smallest set of tokens whose probability reaches this; (0, 1].
        top_k: keep only the k likeliest tokens; -1 keeps all.
        min_p: drop tokens less likely than this times the likeliest; [0, 1].
        stop: strings that end the output; they are not part of it unless `no_stop_trim`.
        stop_token_ids: tokens that end the output, besides the model's own end-of-sequence tokens.
        ignore_eos: sample on after an end-of-sequence token.
        regex: the whole output matches this (Python syntax, ``re.fullmatch``).
        json_schema: the output is JSON valid under this schema (its text, or a dict).
        ebnf: the output is of this grammar, in GBNF (start rule ``root``) or Lark syntax (start rule ``start``).
        structural_tag: text is free up to a trigger, then JSON under a schema: ``{"structures": [{"begin", "schema",
            "end"}, ...], "triggers": [...]}``, as a dict or as JSON text.
        property_order: ``"schema"``: object properties come as declared; ``"any"``: in any order.
        whitespace: in the JSON of a schema. ``"compact"``: none; ``"any"``: wherever JSON allows it, up to 20
            characters in a row.
        seed: of this request's own random numbers; the same seed gives the same draws in any batch.
        skip_special_tokens: leave special tokens out of the text (never out of the token ids).
        no_stop_trim: keep the matched stop string in the text.
        jump_forward: append text that the constraint forces without sampling it.

    Raises:
        SamplingParamsError: a value is out of range or of the wrong type; the message names it.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    property_order: Literal["schema", "any"] = "schema"
    whitespace: Literal["compact", "any"] = "compact"
    seed: int | None = None
    skip_special_tokens: bool = True
    no_stop_trim: bool = False
    jump_forward: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "json_schema", _json_text("json_schema", self.json_schema))
        object.__setattr__(self, "structural_tag", _json_text("structural_tag", self.structural_tag))
        _integer("max_new_tokens", self.max_new_tokens, low=0)
        _integer("top_k", self.top_k, low=-1)
        if self.top_k == 0:
            raise SamplingParamsError("top_k must be -1 (off) or at least 1, not 0")
        _number("temperature", self.temperature, 0.0, math.inf)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise SamplingParamsError("top_p must be in (0, 1], not 0")
        _number("min_p", self.min_p, 0.0, 1.0)
        if self.seed is not None:
            _integer("seed", self.seed)
        for name in ("ignore_eos", "skip_special_tokens", "no_stop_trim", "jump_forward"):
            if not isinstance(getattr(self, name), bool):
                raise SamplingParamsError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("regex", "ebnf"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise SamplingParamsError(f"{name} must be a string, not {type(value).__name__}")
        held = [name for name in CONSTRAINTS if getattr(self, name) is not None]
        if len(held) > 1:
            raise SamplingParamsError(f"{' and '.join(held)} cannot be given together; use one of them")
        if self.property_order not in ("schema", "any"):
            raise SamplingParamsError(
                f'property_order must be "schema" or "any", not {self.property_order!r}'
            )
        if self.whitespace not in ("compact", "any"):
            raise SamplingParamsError(f'whitespace must be "compact" or "any", not {self.whitespace!r}')

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature < 1e-5 or self.top_k == 1

    @property
    def is_constrained(self) -> bool:
        """Whether a regex, a schema, a grammar or a structural tag holds the output."""
        return any(getattr(self, name) is not None for name in CONSTRAINTS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingParams:
        """From a mapping as users write it. ``None`` means the default; ``max_tokens`` is an alias.

        Raises:
            SamplingParamsError: an unknown name (with the nearest known one), or a bad value.
        """
        known = {f.name for f in fields(cls)}
        kept: dict[str, Any] = {}
        for given, value in values.items():
            name = _ALIASES.get(given, given)
            if name not in known:
                raise SamplingParamsError(f"unknown sampling parameter {given!r}{_nearest(given, known)}")
            if name in kept:
                raise SamplingParamsError(f"sampling parameter {name!r} is given twice, also as {given!r}")
            if value is not None:
                kept[name] = value
        return cls(**kept)


def _nearest(name: str, known: set[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def _number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise SamplingParamsError(f"{name} must be a finite number, not {value!r}")
    if not low <= value <= high:
        limits = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
        raise SamplingParamsError(f"{name} must be {limits}, not {value!r}")


def _integer(name: str, value: Any, low: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SamplingParamsError(f"{name} must be an integer, not {value!r}")
    if low is not None and value < low:
        raise SamplingParamsError(f"{name} must be at least {low}, not {value}")


def _strings(name: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else tuple(value or ())
    for item in items:
        if not isinstance(item, str) or not item:
            raise SamplingParamsError(f"{name} must be a non-empty string or a list of them, not {item!r}")
        if len(item.encode()) > MAX_STOP_BYTES:
            raise SamplingParamsError(f"{name}: a string of more than {MAX_STOP_BYTES} bytes is not accepted")
    if len(items) > MAX_STOPS:
        raise SamplingParamsError(f"{name}: at most {MAX_STOPS} strings, not {len(items)}")
    return items


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    items = (value,) if isinstance(value, int) else tuple(value or ())
    for item in items:
        _integer(f"{name} entry", item, low=0)
    return items


def _json_text(name: str, value: Any) -> str | None:
    """What is given as a dict becomes its JSON text, so that parameters stay hashable values."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (dict, bool)):
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise SamplingParamsError(f"{name} cannot be written as JSON: {error}") from error
    raise SamplingParamsError(f"{name} must be JSON text or a dict, not {type(value).__name__}")
