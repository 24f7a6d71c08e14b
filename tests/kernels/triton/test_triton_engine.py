"""A whole engine on Triton's kernels gives what it gives on the CPU's, token by token, and passes its own tests.

All of the engine's tests, interpreted (`tests/support/interpreted.py` says what they leave out there):

    SGL_LIKE_KERNELS=triton TRITON_INTERPRET=1 python -m pytest -m "not slow" tests/runtime/{engine,cache,models}
"""

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

SOME = (
    "core.py::test_finished_prefixes_are_reused",
    "core.py::test_streams_join_to_the_whole",
    "core.py::test_a_failing_step_ends_only_its_own_requests",
    "constrained.py::test_grammars_and_structural_tags_hold",
    "sampling.py::test_a_constraint_wins_over_min_new_tokens_and_bans",
    "sampling.py::test_only_allowed_tokens_are_sampled",
    "logprobs.py::test_several_outputs_share_the_prompt",
)
"""Tests of the engine that tell much in little time."""
INTERPRETED = {"SGL_LIKE_KERNELS": "triton", "TRITON_INTERPRET": "1"}


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
    found = run("cuda") if torch.cuda.is_available() else run("cpu", **INTERPRETED)
    for (ids, logprobs), (expected_ids, expected_logprobs) in zip(found, expected, strict=True):
        assert ids == expected_ids
        torch.testing.assert_close(logprobs, expected_logprobs, atol=2e-4, rtol=2e-4)


@pytest.mark.slow
def test_some_of_the_engines_tests() -> None:
    tests = [f"tests/runtime/engine/test_{name}" for name in SOME]
    changes = {} if torch.cuda.is_available() else INTERPRETED
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *tests], cwd=ROOT, env=os.environ | changes, capture_output=True,
        text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
