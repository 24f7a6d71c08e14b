"""Engines whose weights are kept in fewer bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sgl_like.errors import ConfigError
from sgl_like.runtime.engine.assembly import check_fp8
from sgl_like.runtime.engine.engine import Engine
from tests.support.interpreted import INTERPRETED
from tests.support.small_model import make_model

PROMPTS = [list(range(1, 40)), [7] * 5, [*range(1, 30), 99, 98]]
GREEDY = {"max_new_tokens": 12, "temperature": 0.0, "ignore_eos": True}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
def test_output_does_not_depend_on_the_batch(
    tied: bool, quantization: str, dtype: str, tmp_path: Path
) -> None:
    """Packed layers and attention compute a row the same way in any batch, so this holds in bfloat16 too."""
    folder = make_model(tmp_path, scale=0.2, hidden_size=64, intermediate_size=96, tie_word_embeddings=tied)
    with Engine(folder, dtype=dtype, quantization=quantization, max_batch_tokens=16) as engine:
        together = engine.generate(input_ids=PROMPTS, sampling_params=GREEDY)
        for prompt, found in zip(PROMPTS, together, strict=True):
            engine.flush_cache()
            alone = engine.generate(input_ids=prompt, sampling_params=GREEDY)
            assert alone["output_ids"] == found["output_ids"]


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_eight_bits_are_close_to_the_weights_as_they_are(quantization: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, scale=0.2, hidden_size=64, intermediate_size=96)
    params = {"max_new_tokens": 1, "temperature": 0.0}
    scores = []
    for format_ in (None, quantization):
        with Engine(folder, quantization=format_) as engine:
            found = engine.generate(
                input_ids=PROMPTS[0], sampling_params=params, return_logprob=True, logprob_start_len=0
            )
            scores.append([entry[0] for entry in found["meta_info"]["input_token_logprobs"][1:]])
    differences = [abs(a - b) for a, b in zip(*scores, strict=True)]
    assert 0 < sum(differences) / len(differences) < (0.1 if quantization == "int8" else 0.8)


def test_fp8_needs_a_gpu_that_has_it() -> None:
    check_fp8((8, 9))
    check_fp8((10, 0))
    with pytest.raises(ConfigError, match=r"compute capability 8\.9.*this one has 8\.6"):
        check_fp8((8, 6))


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'int8', 'int4', 'fp8' or None, not 'int3'"):
        Engine(make_model(tmp_path), quantization="int3")
    if not torch.cuda.is_available() and not INTERPRETED:
        for option in ({"quantization": "fp8"}, {"kv_cache_dtype": "fp8"}, {"device": "cuda"}):
            with pytest.raises(ConfigError, match=r"GPU"):
                Engine(make_model(tmp_path), **option)
