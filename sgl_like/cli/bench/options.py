"""What the command's options mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from sgl_like.cli.bench.datasets import Dataset, PromptFile, RandomTokens
from sgl_like.cli.bench.dialects import Sampling
from sgl_like.cli.bench.load import Level
from sgl_like.cli.bench.summary import MEASURES, Measure
from sgl_like.errors import DataError


def levels(
    concurrency: str, rate: str | None, requests: int | None, seconds: float | None, seed: int
) -> Sequence[Level]:
    """The loads; each has a seed of its own, so that none meets the cached prompts of another.

    Raises:
        DataError: a number is none.
    """
    if rate is not None:
        rates = _numbers("--rate", rate)
        if requests is None and seconds is None:
            raise DataError("--rate needs --requests or --seconds")
        return [
            Level(rate=each, requests=requests or 10**9, seconds=seconds, seed=seed + at)
            for at, each in enumerate(rates, 1)
        ]
    found = _numbers("--concurrency", concurrency)
    if any(not each.is_integer() for each in found):
        raise DataError("--concurrency: must be whole numbers")
    unlimited = 10**9 if seconds is not None else None
    return [
        Level(
            concurrency=int(each),
            requests=requests or unlimited or max(32, 4 * int(each)),
            seconds=seconds,
            seed=seed + at,
        )
        for at, each in enumerate(found, 1)
    ]


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise DataError(f"{option}: {text!r} is not a list of numbers, as in 1,2,4") from None
    if not all(0 < each < float("inf") for each in found):
        raise DataError(f"{option}: must be larger than 0")
    return found


def dataset(
    prompts: Path | None,
    *,
    input_len: int,
    output_len: int,
    spread: float,
    groups: int,
    prefix_len: int,
    as_text: bool,
) -> Dataset:
    """What is sent. See `datasets`."""
    if prompts is not None:
        return PromptFile(prompts, output_len)
    return RandomTokens(
        input_len, output_len, spread=spread, groups=groups, prefix_len=prefix_len, as_text=as_text
    )


def sampling(temperature: float, ignore_eos: bool, stream: bool, extra_body: str) -> Sampling:
    """What all requests ask for.

    Raises:
        DataError: `extra_body` is no JSON object.
    """
    try:
        extra = orjson.loads(extra_body)
    except orjson.JSONDecodeError as error:
        raise DataError(f"--extra-body is not JSON: {error}") from None
    if not isinstance(extra, dict):
        raise DataError("--extra-body must be a JSON object")
    return Sampling(temperature=temperature, ignore_eos=ignore_eos, stream=stream, extra=extra)


def objectives(given: Sequence[str]) -> Mapping[Measure, float]:
    """Most seconds by measure.

    Raises:
        DataError: one is not ``measure=seconds``.
    """
    found: dict[Measure, float] = {}
    for text in given:
        name, _, value = text.partition("=")
        measure = next((each for each in MEASURES if each == name), None)
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if measure is None or seconds <= 0:
            raise DataError(f"--slo: {text!r} must be ttft, itl or e2e, `=` and seconds, as in ttft=0.5")
        found[measure] = seconds
    return found
