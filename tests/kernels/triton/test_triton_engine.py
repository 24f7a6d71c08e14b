"""A whole engine on Triton's kernels gives what it gives on the CPU's, token by token."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys
import sgl_like as sgl

device = sys.argv[1]
prompt = "<|system|>Turn the utterance into JSON.<|end|><|user|>play some jazz by Queen<|end|><|assistant|>"
results = []
with sgl.Engine(device=device, dtype="float32", kv_cache_memory=8 * 2**20, speculation="off") as engine:
    for params in (
        {"temperature": 0, "max_new_tokens": 6},
        {"temperature": 0, "max_new_tokens": 8, "regex": '[{]"intent":"(PlayMusic|GetWeather)"'},
        {"temperature": 0, "max_new_tokens": 5, "repetition_penalty": 1.3, "logit_bias": {"5": 3}},
    ):
        found = engine.generate([prompt, prompt + "{", "play"], params, return_logprob=True, top_logprobs_num=2)
        results += [(r["output_ids"], [p for p, _, _ in r["meta_info"]["output_token_logprobs"]]) for r in found]
    engine.check_invariants()
print(json.dumps(results))
"""


def run(device: str, **environment: str) -> list[tuple[list[int], list[float]]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, device], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[tuple[list[int], list[float]]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_an_engine_gives_the_same_tokens() -> None:
    expected = run("cpu", SGL_LIKE_KERNELS="", TRITON_INTERPRET="0")
    interpreted = {"SGL_LIKE_KERNELS": "triton", "TRITON_INTERPRET": "1"}
    found = run("cuda") if torch.cuda.is_available() else run("cpu", **interpreted)
    for (ids, logprobs), (expected_ids, expected_logprobs) in zip(found, expected, strict=True):
        assert ids == expected_ids
        torch.testing.assert_close(logprobs, expected_logprobs, atol=2e-4, rtol=2e-4)
