"""The constraint engine in other people's loops: a `transformers` LogitsProcessor, and numpy alone."""

from __future__ import annotations

import importlib.util
import json
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "transformers_processor.py"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "minLength": 1, "maxLength": 6}, "n": {"enum": [1, 20]}},
    "required": ["city", "n"],
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The example as a module, loaded by path."""
    spec = importlib.util.spec_from_file_location("transformers_processor", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compiler(example: ModuleType) -> GrammarCompiler:
    made: GrammarCompiler = example.make_compiler(example.ASSETS / "tiny", 4096)
    return made


def test_batch_of_two_is_valid(example: ModuleType) -> None:
    schema = json.loads((example.ASSETS / "demo" / "snips.schema.json").read_text("utf-8"))
    outputs = example.extract(example.ASSETS / "tiny", example.UTTERANCES, schema)
    assert len(outputs) == 2
    for output in outputs:
        jsonschema.validate(json.loads(output), schema)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_random_logits_end_apart_and_are_valid(
    example: ModuleType, compiler: GrammarCompiler, seed: int
) -> None:
    """As `generate` does it: an ended row is padded, and the prompt counts for nothing."""
    tokenizer, noise = Tokenizer(example.ASSETS / "tiny", 4096), torch.Generator().manual_seed(seed)
    processor = example.ConstraintProcessor(compiler.compile_json_schema(SCHEMA), prompt_tokens=3)
    ids = torch.randint(5, 4096, (4, 3), generator=noise)
    ended = torch.zeros(4, dtype=torch.bool)
    while not ended.all():
        scores = processor(ids, torch.randn(4, 4096, generator=noise))
        assert scores.shape == (4, 4096)
        chosen = torch.where(ended, 0, scores.argmax(1))  # 0: padding
        ended |= torch.isin(chosen, torch.tensor(tokenizer.eos_token_ids))
        ids = torch.cat([ids, chosen[:, None]], dim=1)
    for row in ids[:, 3:].tolist():
        jsonschema.validate(json.loads(tokenizer.decode(row)), SCHEMA)


def test_a_token_against_the_mask_is_an_error(example: ModuleType, compiler: GrammarCompiler) -> None:
    processor = example.ConstraintProcessor(compiler.compile_json_schema(SCHEMA), prompt_tokens=1)
    scores = processor(torch.tensor([[7]]), torch.zeros(1, 4096))
    banned = int(scores.argmin())
    with pytest.raises(ValueError, match=f"token {banned} was sampled"):
        processor(torch.tensor([[7, banned]]), torch.zeros(1, 4096))


def test_numpy_loop_of_the_docstring(example: ModuleType, compiler: GrammarCompiler) -> None:
    found = re.search(r"^    matcher = .*?(?=^\S)", example.__doc__ or "", re.MULTILINE | re.DOTALL)
    assert found
    random = np.random.default_rng(0)
    names: dict[str, Any] = {
        "compiler": compiler,
        "schema": SCHEMA,
        "mask_words": example.mask_words,
        "np": np,
        "next_logits": lambda output: random.normal(size=4096),
    }
    exec(textwrap.dedent(found[0]), names)
    text = Tokenizer(example.ASSETS / "tiny", 4096).decode(names["output"])
    jsonschema.validate(json.loads(text), SCHEMA)
