"""Texts to vectors: what the embedding endpoints of all APIs share.

An embedding is the mean of the last layer's hidden states over the prompt's tokens, scaled to length 1. The models here
are made to generate, so it is a rough measure of likeness, not what a model trained for retrieval would give.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

from sgl_like.runtime.protocol import GenerateRequest
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call
from sgl_like.runtime.server.prompts import encode_texts
from sgl_like.runtime.server.sampling import check_count, check_ids

_PARAMS = SamplingParams(max_new_tokens=0)


class Embedding(NamedTuple):
    """A prompt's vector, and what it took.

    Args:
        values: of length 1, unless they are all 0.
        tokens: of the prompt.
        cached: how many of them were in the cache.
    """

    values: list[float]
    tokens: int
    cached: int


async def embed(
    call: Call,
    prompts: Sequence[str | Sequence[int]],
    *,
    param: str = "input",
    dimensions: int | None = None,
    cut: bool = False,
    unit: bool = True,
) -> list[Embedding]:
    """The embeddings of prompts, in their order.

    Args:
        call: whose limits, tenant and model count.
        prompts: texts or token ids.
        param: what the client calls the prompts.
        dimensions: keep only so many leading values of each, scaled to length 1 again.
        cut: leave out the end of prompts that are longer than the context, instead of refusing them.
        unit: scale to length 1.

    Raises:
        ApiError: 400.
    """
    info, limits = call.server.info, call.server.config.limits
    check_count(param, len(prompts), 1, limits)
    most = min(info.context_length, info.kv_slots)
    requests = []
    given = [each for each in prompts if isinstance(each, str)]
    if cut:
        chars = most * call.server.tokenizer.longest_token
        given = [each[:chars] for each in given]
    texts = iter(await encode_texts(call, given, param))
    for at, each in enumerate(prompts):
        ids = next(texts) if isinstance(each, str) else each
        where = param if len(prompts) == 1 else f"{param}[{at}]"
        check_ids(where, ids, info.vocab_size)
        if len(ids) > most and not cut:
            raise bad_request(
                f"{where} has {len(ids)} tokens, and the model's context is {most}",
                where,
                "context_length_exceeded",
            )
        requests.append(
            GenerateRequest(
                ids[:most], _PARAMS, embed=True, deadline=limits.run_seconds, namespace=call.namespace()
            )
        )
    async with call.generate(requests) as generation:
        outputs = [found[-1] for found in await generation.all()]
    vectors = []
    for output in outputs:
        assert output.embedding is not None
        values = _cut(output.embedding, dimensions)
        usage = output.usage
        vectors.append(
            Embedding(_unit(values) if unit else list(values), usage.prompt_tokens, usage.cached_tokens)
        )
    return vectors


def as_base64(values: Sequence[float]) -> str:
    """Values as 32-bit floats, least significant byte first, in base64."""
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


def _cut(values: Sequence[float], dimensions: int | None) -> Sequence[float]:
    if dimensions is None:
        return values
    if not 1 <= dimensions <= len(values):
        raise bad_request(
            f"dimensions must be between 1 and {len(values)}, not {dimensions}", param="dimensions"
        )
    return values[:dimensions]


def _unit(values: Sequence[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in values))
    return [value / length for value in values] if length else list(values)
