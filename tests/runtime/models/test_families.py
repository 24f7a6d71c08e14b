"""Every family against `transformers`, at random weights in float32: logits, greedy tokens, and counts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.models.load import load_model, parameter_count, read_model_config
from tests.support.devices import DEVICE
from tests.support.families import FAMILIES, make_family
from tests.support.forward import run

NEW = 32


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a family and its model in `transformers`, made once."""

    @functools.cache
    def make(name: str) -> tuple[Path, Any]:
        folder = tmp_path_factory.mktemp("family")
        return folder, make_family(folder, name)

    return make


def tokens(count: int, seed: int) -> list[int]:
    return torch.randint(0, 256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_transformers(name: str, family: Any) -> None:
    folder, theirs = family(name)
    ids = tokens(140, seed=1)
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits[0]
    assert expected.std() > 0.3
    model = load_model(folder, "float32", device=DEVICE)
    for chunks in ([140], [60, 40, 1, 1, 38], [5, 10] + [1] * 90 + [35]):
        assert (run(model, ids, chunks) - expected).abs().max() < 2e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_tokens_equal_transformers(name: str, family: Any) -> None:
    """Cold in one chunk, with its prefix in the cache, and beside others in small chunks."""
    folder, theirs = family(name)
    shared = tokens(40, seed=2)
    prompts = [shared + tokens(count, seed=count) for count in (3, 17, 30)]
    expected = [
        theirs.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(prompt) :].tolist()
        for prompt in prompts
    ]
    params = {"max_new_tokens": NEW, "temperature": 0.0, "ignore_eos": True}
    with Engine(folder, dtype="float32", max_batch_tokens=11) as engine:
        results = engine.generate(input_ids=prompts, sampling_params=params)
        assert [result["output_ids"] for result in results] == expected
    with Engine(folder, dtype="float32") as engine:
        cold = engine.generate(input_ids=prompts[0], sampling_params=params)
        assert cold["output_ids"] == expected[0]
        for prompt, wanted in zip(prompts, expected, strict=True):
            warm = engine.generate(input_ids=prompt, sampling_params=params)
            assert warm["output_ids"] == wanted
            assert warm["meta_info"]["cached_tokens"] >= len(shared)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_counted(name: str, family: Any) -> None:
    folder, theirs = family(name)
    expected = sum(p.numel() for p in theirs.parameters() if p.ndim > 1)
    assert parameter_count(read_model_config(folder)) == expected


@pytest.mark.parametrize("name", ["qwen3 moe", "gemma2", "gpt2", "phi3, longrope"])
def test_bfloat16_is_close_to_float32(name: str, family: Any) -> None:
    folder, _ = family(name)
    ids = tokens(50, seed=3)
    wide, narrow = (
        run(load_model(folder, "float32", device=DEVICE), ids, [50]),
        run(load_model(folder, "bfloat16", device=DEVICE), ids, [30, 20]),
    )
    assert (wide - narrow).abs().mean() < 0.03 * wide.abs().mean() + 0.03
    assert (wide.argmax(-1) == narrow.argmax(-1)).float().mean() > 0.8


@pytest.mark.parametrize("name", ["gemma3", "gpt2", "qwen2 moe", "phi3"])
def test_dummy_weights_need_no_file(name: str, family: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((family(name)[0] / "config.json").read_text())
    a, b = (run(load_model(tmp_path, load_format="dummy"), [1, 2, 3], [3]) for _ in range(2))
    assert torch.equal(a, b) and a.std() > 0.1


def test_longrope_beyond_the_context_of_pretraining(tmp_path: Path) -> None:
    theirs = make_family(tmp_path, "phi3, longrope", original_max_position_embeddings=50)
    assert read_model_config(tmp_path).max_position == 50
    assert read_model_config(tmp_path, 40).max_position == 50
    ids = tokens(120, seed=4)
    with torch.inference_mode():
        short, long = (theirs(torch.tensor([part])).logits[0] for part in (ids[:50], ids))
    assert (run(load_model(tmp_path, "float32", device=DEVICE), ids[:50], [50]) - short).abs().max() < 2e-4
    model = load_model(tmp_path, "float32", context_length=256, device=DEVICE)
    assert model.config.max_position == 256
    assert (run(model, ids, [40, 1, 79]) - long).abs().max() < 2e-4
