"""Sampling parameters of one request, under SGLang's names, checked when they are made.

Nothing here knows a tokenizer or a model: what needs one (stop strings to tokens, compiling a schema) is done
by the engine when the request is submitted.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from typing import Any, Literal

from sgl_like.errors import SamplingParamsError

MAX_STOPS = 16
MAX_STOP_BYTES = 1024
MAX_BAD_WORDS = 128
MAX_BAD_WORD_BYTES = 256
MAX_BIASES = 1024
MAX_BIAS = 100.0
MAX_COPIES = 64
MIN_REPETITION_PENALTY = 1e-6
"""Logits are divided by it, in float32: the quotients have to be finite."""
CONSTRAINTS = ("regex", "json_schema", "ebnf", "structural_tag")
_TOKEN_ID = re.compile(r"[0-9]{1,10}")
_ALIASES = {"min_tokens": "min_new_tokens", "max_tokens": "max_new_tokens", "sampling_seed": "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample one request.

    Args:
        max_new_tokens: most tokens to produce, forced ones included.
        temperature: 0 is greedy. Greater values flatten the distribution.
        top_p: smallest set of tokens whose probability reaches this; (0, 1].
        top_k: keep only the k likeliest tokens; -1 keeps all.
        min_p: drop tokens less likely than this times the likeliest; [0, 1].
        frequency_penalty: taken from a token's logit for each time that the output has it; [-2, 2].
        presence_penalty: taken from the logits of all tokens that the output has; [-2, 2].
        repetition_penalty: divides the positive logits, and multiplies the negative ones, of all tokens that the
            prompt or the output has; [1e-6, 2], 1 changes nothing.
        logit_bias: added to the logits of these tokens: ``{token id: bias}``, ids as int or str, biases in
            [-100, 100]. Kept as pairs in the order of ids.
        min_new_tokens: while the output has fewer tokens, none that ends it is sampled. Stop strings and regexes
            still end it, and so does a constraint that has nothing left to add.
        bad_words: strings that the output never has in it, however they are cut into tokens; only a constraint that
            allows nothing else, or text that it forces, can bring one.
        allowed_token_ids: only these tokens are sampled, so none of the model's end-of-sequence tokens if it is not one
            of them; only a constraint that allows nothing else, or text that it forces, can bring another. Empty: all.
        stop: strings that end the output; they are not part of it unless `no_stop_trim`.
        stop_regex: regexes (Python syntax, ``re.search``) that end the output as soon as they match; the match is not
            part of it unless `no_stop_trim`.
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
        n: number of outputs for the prompt; each draws its own random numbers, the first those of `seed`.
        skip_special_tokens: leave special tokens out of the text (never out of the token ids).
        no_stop_trim: keep the matched stop string, or match of a stop regex, in the text.
        jump_forward: append text that the constraint forces without sampling it.

    Raises:
        SamplingParamsError: a value is out of range or of the wrong type; the message names it.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_new_tokens: int = 0
    bad_words: tuple[str, ...] = ()
    allowed_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    stop_regex: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    regex: str | None = None
    json_schema: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    property_order: Literal["schema", "any"] = "schema"
    whitespace: Literal["compact", "any"] = "compact"
    seed: int | None = None
    n: int = 1
    skip_special_tokens: bool = True
    no_stop_trim: bool = False
    jump_forward: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _strings("stop", self.stop))
        object.__setattr__(self, "stop_regex", _strings("stop_regex", self.stop_regex))
        bad_words = _strings("bad_words", self.bad_words, MAX_BAD_WORDS, MAX_BAD_WORD_BYTES)
        object.__setattr__(self, "bad_words", bad_words)
        object.__setattr__(self, "logit_bias", _biases("logit_bias", self.logit_bias))
        object.__setattr__(self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        allowed = _token_ids("allowed_token_ids", self.allowed_token_ids)
        object.__setattr__(self, "allowed_token_ids", allowed)
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
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, MIN_REPETITION_PENALTY, 2.0)
        _integer("min_new_tokens", self.min_new_tokens, low=0)
        if self.min_new_tokens > self.max_new_tokens:
            raise SamplingParamsError(
                f"min_new_tokens must be at most max_new_tokens={self.max_new_tokens}, not {self.min_new_tokens}"
            )
        _integer("n", self.n, low=1, high=MAX_COPIES)
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

    def for_copy(self, index: int) -> SamplingParams:
        """The parameters of the `index`-th of the `n` outputs: its own seed, of which the first is `seed` itself."""
        seed = self.seed
        if seed is not None and index > 0:
            digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
            seed = int.from_bytes(digest, "little") >> 1
        other = copy(self)  # `replace` would check everything again
        object.__setattr__(other, "n", 1)
        object.__setattr__(other, "seed", seed)
        return other

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingParams:
        """From a mapping as users write it. ``None`` means the default; ``max_tokens``, ``min_tokens`` and
        ``sampling_seed`` are accepted too.

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


def _integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SamplingParamsError(f"{name} must be an integer, not {value!r}")
    if low is not None and value < low:
        raise SamplingParamsError(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise SamplingParamsError(f"{name} must be at most {high}, not {value}")


def _strings(
    name: str, value: Any, most: int = MAX_STOPS, most_bytes: int = MAX_STOP_BYTES
) -> tuple[str, ...]:
    if value is not None and not isinstance(value, str | Sequence):
        raise SamplingParamsError(f"{name} must be a string or a list of strings, not {value!r}")
    items = (value,) if isinstance(value, str) else tuple(value or ())
    for item in items:
        if not isinstance(item, str) or not item:
            raise SamplingParamsError(f"{name} must be a non-empty string or a list of them, not {item!r}")
        if len(item.encode(errors="surrogatepass")) > most_bytes:
            raise SamplingParamsError(f"{name}: a string of more than {most_bytes} bytes is not accepted")
    if len(items) > most:
        raise SamplingParamsError(f"{name}: at most {most} strings, not {len(items)}")
    return items


def _biases(name: str, value: Any) -> tuple[tuple[int, float], ...]:
    """Pairs in the order of ids, whatever form they were given in."""
    try:
        pairs = list(value.items() if isinstance(value, Mapping) else ((a, b) for a, b in value or ()))
    except (TypeError, ValueError):
        raise SamplingParamsError(f"{name} must be a dict from token id to bias, not {value!r}") from None
    if len(pairs) > MAX_BIASES:
        raise SamplingParamsError(f"{name}: at most {MAX_BIASES} tokens, not {len(pairs)}")
    found: dict[int, float] = {}
    for key, bias in pairs:
        token = int(key) if isinstance(key, str) and _TOKEN_ID.fullmatch(key) else key
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise SamplingParamsError(f"{name}: {key!r} is not a token id")
        _number(f"{name}[{token}]", bias, -MAX_BIAS, MAX_BIAS)
        if token in found:
            raise SamplingParamsError(f"{name}: token {token} is there twice")
        found[token] = float(bias)
    return tuple(sorted(found.items()))


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, int | Iterable | None):
        raise SamplingParamsError(f"{name} must be a list of token ids, not {value!r}")
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
