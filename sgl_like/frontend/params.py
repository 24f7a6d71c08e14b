"""Sampling parameters between a program and its backend: names, defaults of a run, what is neutral.

A parameter that a backend does not know is an error unless its value changes nothing (``n=1``): nothing is
dropped in silence. Values are checked by the backend, which knows their ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sgl_like.errors import SamplingParamsError
from sgl_like.frontend.backend.base import Backend
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = ["RUN_DEFAULTS", "SAMPLING_OPTIONS", "copies", "derived_seed", "request_params", "schema_text"]

RUN_DEFAULTS: Mapping[str, Any] = {"max_new_tokens": 128, "temperature": 1.0}

SAMPLING_OPTIONS = frozenset(
    {
        "max_new_tokens", "min_new_tokens", "n", "stop", "stop_token_ids", "stop_regex", "temperature", "top_p",
        "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias",
        "bad_words", "ignore_eos", "seed", "return_logprob", "logprob_start_len", "top_logprobs_num",
        "token_ids_logprob", "return_text_in_logprobs",
    }
)  # fmt: skip
"""What ``run`` takes as a default for every gen of a program."""

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "min_new_tokens": (0,),
    "stop_regex": ("", (), []),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({}, (), None),
    "bad_words": ((), []),
    "return_logprob": (False,),
    "logprob_start_len": (-1,),
    "top_logprobs_num": (0,),
    "return_text_in_logprobs": (False,),
}

# As SGLang's, but for str, which may contain anything that a JSON string may. The trailing blanks let a model
# end a number its own way; they are stop strings and never part of the value.
_DTYPES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "int": (r"[-+]?[0-9]+[ \n]*", (" ", "\n")),
    "float": (r"[-+]?[0-9]*\.?[0-9]+[ \n]*", (" ", "\n")),
    "bool": (r"(True|False)", ()),
    "str": (r'"([^"\\\n]|\\["\\/bfnrt])*"', ()),
}


def dtype_name(dtype: type | str) -> str:
    """``int`` or ``"int"`` and so on, as text.

    Raises:
        SamplingParamsError: it is none of int, float, str and bool.
    """
    name = dtype.__name__ if isinstance(dtype, type) else dtype
    if name not in _DTYPES:
        raise SamplingParamsError(f"dtype must be int, float, str or bool, not {dtype!r}")
    return name


def schema_text(schema: Any) -> Any:
    """A pydantic model class becomes its JSON Schema; text and dicts stay for the backend to check."""
    emit = getattr(schema, "model_json_schema", None)
    if callable(emit):
        return emit()
    if isinstance(schema, (str, dict, bool)):
        return schema
    raise SamplingParamsError(
        f"json_schema must be a dict, its JSON text or a pydantic model class, not {type(schema).__name__}"
    )


def request_params(defaults: Mapping[str, Any], own: Mapping[str, Any], backend: Backend) -> dict[str, Any]:
    """What to submit: the run's defaults, overridden by the gen's own.

    Raises:
        SamplingParamsError: a parameter is set that the backend does not have.
    """
    params = {**defaults, **own}
    dtype = params.pop("dtype", None)
    if dtype is not None:
        regex, stops = _DTYPES[dtype]
        given = params.get("stop", ())
        params["regex"] = regex
        params["stop"] = (*((given,) if isinstance(given, str) else given), *stops)
    known = backend.supported_params
    for name in [name for name in params if name not in known]:
        value = params.pop(name)
        if value not in _NEUTRAL.get(name, ()):
            raise SamplingParamsError(f"{name}={value!r} is not supported by {type(backend).__name__} yet")
    return params


def copies(params: dict[str, Any]) -> int:
    """How many outputs a gen asks for; takes ``n`` out of its parameters, as each of them is a request of its own.

    Raises:
        SamplingParamsError: it is not a number from 1 to 64.
    """
    count = params.pop("n", 1)
    return SamplingParams(n=1 if count is None else count).n


def derived_seed(seed: int, place: tuple[int, ...]) -> int:
    """The seed of one gen of a run with `seed`. Each place in a program (and each fork) draws its own numbers.

    Two forks that ran the same seed would write the same text; a rerun of the program still gives the same.
    """
    digest = hashlib.blake2b(repr((seed, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
