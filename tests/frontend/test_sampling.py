"""Sampling parameters, several outputs and log-probabilities of a gen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sgl.Runtime]:
    folder = make_model(tmp_path_factory.mktemp("frontend"))
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


@sgl.function
def several(s: Any) -> None:
    s += "x" + sgl.gen("a", n=3) + "|" + sgl.gen("b")


def test_the_value_is_a_list_and_the_first_goes_on() -> None:
    backend = FakeBackend(lambda call: f"answer {len(backend.calls)}")
    state = several.run(backend=backend, seed=4)
    assert state["a"] == ["answer 1", "answer 2", "answer 3"]
    assert state.text() == "xanswer 1|answer 4" and backend.calls[3].prompt == "xanswer 1|"
    seeds = [call.params["seed"] for call in backend.calls]
    assert len(set(seeds)) == 4 and "n" not in backend.calls[0].params
    meta = state.get_meta_info("a")
    assert meta is not None and len(meta["samples"]) == 3
    assert state.usage.completion_tokens == sum(len(call.sampled) for call in backend.calls)
    again = several.run(backend=backend, seed=4)
    again.sync()
    assert [call.params["seed"] for call in backend.calls[4:]] == seeds


def test_only_the_first_streams() -> None:
    backend = FakeBackend(lambda call: f"answer {len(backend.calls)}")
    state = several.run(backend=backend, stream=True)
    assert "".join(state.text_iter("a")) == "answer 1"
    assert "".join(state.text_iter()) == state.text()


def test_an_output_that_fails_fails_the_gen() -> None:
    backend = FakeBackend(lambda call: RuntimeError("boom") if len(backend.calls) == 2 else "fine")
    error = several.run(backend=backend).error()
    assert error is not None and "boom" in str(error)


def test_n_is_checked() -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", n=65)

    error = program.run(backend=FakeBackend()).error()
    assert error is not None and "n must be at most 64, not 65" in str(error)


def test_log_probabilities(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "abc" + sgl.gen(
            "a", max_tokens=4, ignore_eos=True, return_logprob=True, logprob_start_len=0, top_logprobs_num=2,
            return_text_in_logprobs=True, token_ids_logprob=[3],
        )  # fmt: skip
        s += sgl.gen("b", max_tokens=2)

    state = program.run(backend=runtime, temperature=0)
    meta = state.get_meta_info("a")
    assert meta is not None
    assert [token for _, token, _ in meta["output_token_logprobs"]] == meta["output_ids"]
    assert [text for _, _, text in meta["input_token_logprobs"]] == ["a", "b", "c"]
    assert meta["output_top_logprobs"][0][0] == meta["output_token_logprobs"][0]
    assert len(meta["output_token_ids_logprobs"]) == 4
    assert "output_token_logprobs" not in (state.get_meta_info("b") or {})


def test_parameters_reach_the_engine(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "q" + sgl.gen("a", max_tokens=6, logit_bias={ord("k"): 100}, ignore_eos=True)
        s += sgl.gen("b", max_tokens=6, logit_bias={"107": 100}, bad_words=["kk"], frequency_penalty=0.1)
        s += sgl.gen("c", max_tokens=3, min_tokens=3, repetition_penalty=1.5, stop_token_ids=list(range(250)))

    state = program.run(backend=runtime, temperature=0)
    assert state["a"] == "k" * 6 and "kk" not in state["b"]
    assert len(state.get_meta_info("c")["output_ids"]) == 3  # type: ignore[index]
