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
from sgl_like.frontend.global_config import global_config
from sgl_like.frontend.outputs.dtypes import constraint
from sgl_like.runtime.sampling_params import SamplingParams

__all__ = [
    "RUN_DEFAULTS",
    "SAMPLING_OPTIONS",
    "call_params",
    "check_sampling_options",
    "copies",
    "derived_seed",
    "request_params",
    "retry_params",
]

RETRY_TEMPERATURE = 0.7

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


def check_sampling_options(caller: str, given: Mapping[str, Any]) -> None:
    """Refuse what is no sampling parameter of a run.

    Raises:
        TypeError: as Python does for an unknown keyword argument.
    """
    unknown = sorted(set(given) - SAMPLING_OPTIONS)
    if unknown:
        raise TypeError(f"{caller}() got an unexpected keyword argument {unknown[0]!r}")


def request_params(defaults: Mapping[str, Any], own: Mapping[str, Any], backend: Backend) -> dict[str, Any]:
    """What to submit: the run's defaults, overridden by the gen's own.

    Raises:
        SamplingParamsError: a parameter is set that the backend does not have.
    """
    params = {**defaults, **own}
    if not global_config.skip_special_tokens_in_output:
        params.setdefault("skip_special_tokens", False)
    dtype = params.pop("dtype", None)
    if dtype is not None:
        params |= constraint(dtype, params.get("stop"))
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
    count = params.pop("n", None)
    return 1 if count is None else SamplingParams(n=count).n


def derived_seed(seed: int, place: tuple[int, ...]) -> int:
    """The seed of one gen of a run with `seed`. Each place in a program (and each fork) draws its own numbers.

    Two forks that ran the same seed would write the same text; a rerun of the program still gives the same.

    Raises:
        SamplingParamsError: `seed` is not an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise SamplingParamsError(f"seed must be an integer, not {seed!r}")
    digest = hashlib.blake2b(repr((seed, place)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def retry_params(
    params: Mapping[str, Any], place: tuple[int, ...], attempt: int, told: bool, known: frozenset[str]
) -> dict[str, Any]:
    """Parameters of another attempt at what `params` gave before: with other random numbers.

    A greedy gen would repeat itself. Unless the model has been `told` what was wrong, it is sampled instead, from a
    seed that only depends on `place`, so that the program stays reproducible.
    """
    again = dict(params)
    seed = params.get("seed")
    if (
        SamplingParams(temperature=params["temperature"], top_k=params.get("top_k", -1)).is_greedy
        and not told
    ):
        again |= {"temperature": RETRY_TEMPERATURE}
        again.pop("top_k", None)
        seed = (0 if seed is None else seed) if "seed" in known else None
    if seed is not None:
        again["seed"] = derived_seed(seed, (*place, attempt))
    return again


def call_params(params: Mapping[str, Any], backend: Backend, **held: Any) -> dict[str, Any]:
    """Parameters of a part of a tool call, which is `held` to a form, in a gen with `params`.

    Raises:
        SamplingParamsError: the backend cannot hold an output to it.
    """
    shared = ("max_new_tokens", "temperature", "top_p", "top_k", "min_p", "seed")
    return request_params({name: params[name] for name in shared if name in params}, held, backend)
