"""`Runtime` with SGLang's face, on a small model: arguments, names, cache, stops of named templates, meta data.

Marks: c#10.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.backend.server_args import engine_options
from tests.support.frontend_fake_backend import FakeBackend
from tests.support.small_model import make_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("runtime"))


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Iterator[sgl.Runtime]:
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=1 << 22) as runtime:
        yield runtime


def _small(folder: Path, **options: Any) -> sgl.Runtime:
    return sgl.Runtime(model_path=str(folder), dtype="float32", kv_cache_memory=1 << 20, **options)


# -- arguments ------------------------------------------------------------------------------------------------------


def test_sglangs_scripts_start_a_runtime(folder: Path) -> None:
    with pytest.warns(
        UserWarning, match=r"ignored: mem_fraction_static, trust_remote_code, cuda_graph_max_bs$"
    ):
        runtime = _small(
            folder, mem_fraction_static=0.7, trust_remote_code=True, tp_size=1, cuda_graph_max_bs=4, device="cpu",
            log_level="error", chunked_prefill_size=512, disable_radix_cache=True, context_length=128,
        )  # fmt: skip
    with runtime:
        config = runtime.endpoint.get_server_info()
        assert (config["max_batch_tokens"], config["enable_radix_cache"], config["context_length"]) == (
            512,
            False,
            128,
        )
        assert config["tokenizer_path"] == config["model_path"] == runtime.get_model_name() == str(folder)
        assert runtime.model_info["model_path"] == str(folder)


def test_arguments_are_mapped() -> None:
    assert engine_options({"chunked_prefill_size": -1, "speculative_algorithm": "NGRAM", "tp_size": 1}) == {
        "speculation": "ngram"
    }
    assert engine_options({"load_format": "safetensors", "chat_template_name": "chatml", "page_size": 16}) == {
        "load_format": "auto", "chat_template": "chatml", "page_size": 16,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tp_size": 8}, "tp_size=8 cannot be honoured: the engine runs in one process"),
        ({"kv_cache_dtype": "fp8_e5m2"}, "kv_cache_dtype='fp8_e5m2' cannot be honoured"),
        ({"max_total_tokens": 100}, "give kv_cache_memory"),
        ({"speculative_algorithm": "EAGLE"}, "there is 'NGRAM' only"),
        ({"mem_fraction_statik": 0.5}, "argument 'mem_fraction_statik' of Runtime; did you mean 'mem_fraction_static'"),
        ({"max_runing_requests": 5}, "did you mean 'max_running_requests'"),
        ({"chat_template": "chatml", "chat_template_name": "yi"}, "given twice, also as chat_template_name"),
        ({"quantization": "int3"}, "quantization must be 'int8', 'int4', 'fp8' or None"),
        ({"log_level": "loud"}, "log_level must be one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_an_error(folder: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(sgl.ConfigError) as caught:
        _small(folder, **given)
    assert message in str(caught.value)


def test_the_engine_takes_a_template_by_name_too(folder: Path) -> None:
    with sgl.Engine(
        str(folder), chat_template_name="chatml", dtype="float32", kv_cache_memory=1 << 20
    ) as engine:
        assert engine.tokenizer.role_affixes([], "user") == ("<|im_start|>user\n", "<|im_end|>\n")
    with pytest.raises(sgl.ConfigError, match="not both"):
        sgl.Engine(str(folder), chat_template_name="chatml", chat_template="yi")


def test_log_level_is_that_of_the_package(folder: Path) -> None:
    logger = logging.getLogger("sgl_like")
    before = logger.level
    try:
        with _small(folder, log_level="debug"):
            assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(before)


def test_a_random_seed_makes_draws_repeatable(folder: Path) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += "x" + sgl.gen("a", max_tokens=8, ignore_eos=True) + sgl.gen("b", max_tokens=8, ignore_eos=True)

    texts = []
    for seed in (5, 5, 6):
        with _small(folder, random_seed=seed) as runtime:
            texts.append(program.run(backend=runtime).text())
    assert texts[0] == texts[1] != texts[2]


# -- SGLang's methods -------------------------------------------------------------------------------------------------


def test_generate_gives_json_text(runtime: sgl.Runtime) -> None:
    result = json.loads(runtime.generate("abc", {"max_new_tokens": 3, "temperature": 0}, return_logprob=True))
    assert result == runtime.engine.generate("abc", {"max_new_tokens": 3, "temperature": 0}) | result
    assert [token for _, token, _ in result["meta_info"]["output_token_logprobs"]] == result["output_ids"]
    both = json.loads(runtime.generate(["abc", "d"], {"max_new_tokens": 3, "temperature": 0}))
    assert both[0]["text"] == result["text"]


def test_async_generate_gives_pieces(runtime: sgl.Runtime) -> None:
    async def read() -> list[str]:
        return [
            piece async for piece in runtime.async_generate("abc", {"max_new_tokens": 9, "temperature": 0})
        ]

    whole = runtime.engine.generate("abc", {"max_new_tokens": 9, "temperature": 0})["text"]
    assert "".join(asyncio.run(read())) == whole


def test_a_runtime_has_a_url_once_it_is_asked_for() -> None:
    with sgl.Runtime() as runtime:
        expected = runtime.engine.generate("abc", {"max_new_tokens": 5, "temperature": 0})
        body = json.dumps(
            {"text": "abc", "sampling_params": {"max_new_tokens": 5, "temperature": 0}}
        ).encode()
        url = runtime.url
        assert runtime.url == url
        with urllib.request.urlopen(f"{url}/generate", body) as answer:
            found = json.load(answer)
        assert (found["text"], found["output_ids"]) == (expected["text"], expected["output_ids"])
        with sgl.RuntimeEndpoint(url) as endpoint:
            assert endpoint.get_server_info()["kv_slots"] == runtime.get_server_info()["kv_slots"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/livez")


def test_what_there_is_not_is_said(runtime: sgl.Runtime) -> None:
    for text in ("hello", ["hello"]):
        with pytest.raises(sgl.RequestError, match="no embedding models"):
            runtime.encode(text)  # type: ignore[arg-type]
    assert runtime.get_tokenizer().decode(runtime.get_tokenizer().encode("hello")) == "hello"
    assert runtime.get_chat_template().role_affixes([], "user") == ("<|user|>", "<|end|>")


def test_questions_about_a_backend(runtime: sgl.Runtime, backend: FakeBackend) -> None:
    assert sgl.get_server_info() == {"model_path": "fake"}
    assert sgl.get_server_info(runtime)["kv_slots"] > 0  # type: ignore[index]
    with pytest.raises(sgl.RequestError, match="FakeBackend says nothing about a prefix cache"):
        sgl.cache_stats()
    backend.cache_prefix("nothing happens")
    sgl.set_default_backend(None)
    assert sgl.get_server_info() is None and sgl.flush_cache() is False
    with pytest.raises(sgl.RequestError, match="no backend yet"):
        sgl.cache_stats()


# -- chat templates ---------------------------------------------------------------------------------------------------


def test_a_named_template_and_what_ends_its_messages(folder: Path) -> None:
    @sgl.function
    def program(s: Any, stop: Any = None) -> None:
        s += sgl.user("hi") + sgl.assistant(sgl.gen("a", stop=stop))

    seen: list[Any] = []
    with _small(folder, chat_template_name="chatml") as runtime:
        submit = runtime.engine.submit
        runtime.engine.submit = lambda request, sink: (seen.append(request.params), submit(request, sink))  # type: ignore
        text = program.run(backend=runtime, max_new_tokens=2).text()
        program.run("x", backend=runtime, max_new_tokens=2).sync()
        program.run(backend=runtime, max_new_tokens=2, ignore_eos=True).sync()
    assert text.startswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert [params.stop for params in seen] == [("<|im_end|>",), ("x", "<|im_end|>"), ()]
    with _small(folder, chat_template="phi-3") as runtime:
        submit = runtime.engine.submit
        runtime.engine.submit = lambda request, sink: (seen.append(request.params), submit(request, sink))  # type: ignore
        program.run(backend=runtime, max_new_tokens=2).sync()
    assert (seen[-1].stop, seen[-1].stop_token_ids) == ((), (256,)), (
        "<|end|> is a special token of this model"
    )


# -- the cache --------------------------------------------------------------------------------------------------------


@sgl.function
def forked(s: Any, size: int) -> None:
    s += "the quick brown fox jumps over the lazy dog and "
    forks = s.fork(size)
    forks += lambda i: f"{i}" + sgl.gen("x", max_tokens=2, ignore_eos=True)
    forks.join()


def test_c10_a_fork_computes_its_prefix_once(runtime: sgl.Runtime) -> None:
    sgl.flush_cache(runtime)
    before = sgl.cache_stats(runtime)
    state = forked.run(8, backend=runtime, temperature=0)
    after = sgl.cache_stats(runtime)
    prefix = len("the quick brown fox jumps over the lazy dog and ")
    assert len(state["x"]) == 8
    assert state.usage.prompt_tokens == 8 * (prefix + 1)
    assert after.misses - before.misses == prefix + 8, "the prefix, and a digit for each"
    assert after.hits - before.hits == 7 * prefix == state.usage.cached_tokens
    assert state.usage.computed_tokens == prefix + 8 + 8, "besides, the first of two new tokens of each"


def test_c10_least_recently_used_goes_first_and_outputs_stay_the_same(folder: Path) -> None:
    """A pool of 160 tokens and prompts of 40: the fourth besides the running one needs room."""

    @sgl.function
    def ask(s: Any, letter: str) -> None:
        s += letter * 40 + sgl.gen("x", max_tokens=4, ignore_eos=True)

    with sgl.Runtime(
        str(folder), dtype="float32", kv_cache_memory=160 * _slot_bytes(folder), speculation="off"
    ) as runtime:

        def cached(letter: str) -> int:
            state = ask.run(letter, backend=runtime, temperature=0)
            texts.setdefault(letter, []).append(state["x"])
            return int(state.get_meta_info("x")["cached_tokens"])  # type: ignore[index]

        texts: dict[str, list[str]] = {}
        assert [cached(letter) for letter in "abc"] == [0, 0, 0]
        assert sgl.cache_stats(runtime).evictions == 0
        assert cached("a") == 39, "used again: now b is the oldest; the last token is always computed"
        assert cached("d") == 0
        assert sgl.cache_stats(runtime).evictions > 0
        assert cached("a") == 39 and cached("c") == 39, "b went"
        assert cached("b") < 39
        assert all(len(set(outputs)) == 1 for outputs in texts.values()), "the same before and after eviction"


def _slot_bytes(folder: Path) -> int:
    with _small(folder) as runtime:
        return (1 << 20) // sgl.cache_stats(runtime).capacity


def test_c10_pins_stay(folder: Path) -> None:
    with sgl.Runtime(str(folder), dtype="float32", kv_cache_memory=200 * _slot_bytes(folder)) as runtime:
        runtime.cache_prefix("p" * 30)
        assert sgl.cache_stats(runtime).cached == 30
        pin = runtime.pin("q" * 30)
        assert sgl.cache_stats(runtime).pinned == 30
        for letter in "abcdefgh":
            runtime.generate(letter * 60, {"max_new_tokens": 2})
        assert runtime.engine.generate("q" * 31, {"max_new_tokens": 1})["meta_info"]["cached_tokens"] == 30
        assert runtime.engine.generate("p" * 31, {"max_new_tokens": 1})["meta_info"]["cached_tokens"] == 0
        assert runtime.unpin(pin) and not runtime.unpin(pin)
        assert sgl.cache_stats(runtime).pinned == 0
        assert sgl.flush_cache(runtime) and sgl.cache_stats(runtime).cached == 0


# -- meta data --------------------------------------------------------------------------------------------------------


@sgl.function
def scored(s: Any) -> None:
    s += "abc" + sgl.gen(
        "a", max_tokens=12, ignore_eos=True, return_logprob=True, top_logprobs_num=2, logprob_start_len=0,
        return_text_in_logprobs=True,
    )  # fmt: skip


def test_pieces_of_a_stream_have_their_log_probabilities(runtime: sgl.Runtime) -> None:
    async def read() -> list[tuple[str, dict[str, Any]]]:
        state = scored.run(backend=runtime, temperature=0, stream=True)
        return [piece async for piece in state.text_async_iter("a", return_meta_data=True)]

    pieces = asyncio.run(read())
    state = scored.run(backend=runtime, temperature=0)
    meta = state.get_meta_info("a")
    assert meta is not None and len(pieces) > 2
    assert "".join(text for text, _ in pieces) == state["a"]
    sampled = [entry for _, each in pieces for entry in each["output_token_logprobs"]]
    assert [token for _, token, _ in sampled] == meta["output_ids"]
    assert [x for x, _, _ in sampled] == pytest.approx([x for x, _, _ in meta["output_token_logprobs"]])
    likeliest = [entry for _, each in pieces for entry in each["output_top_logprobs"]]
    assert [top[0][1] for top in likeliest] == [top[0][1] for top in meta["output_top_logprobs"]]
    counts = [each["output_token_logprobs_length"] for _, each in pieces]
    assert counts == sorted(counts) and counts[-1] == meta["output_token_logprobs_length"] == 12
    assert [text for _, _, text in pieces[0][1]["input_token_logprobs"]] == ["a", "b", "c"]
    assert all(each["input_token_logprobs"] == [] for _, each in pieces[1:])
    assert {"prompt_tokens", "completion_tokens", "cached_tokens", "finish_reason", "id"} <= set(meta)
    assert {"input_token_logprobs", "input_top_logprobs", "output_top_logprobs"} <= set(meta)


def test_looking_at_the_next_token_without_writing_it(runtime: sgl.Runtime) -> None:
    """As SGLang's cot_decoding.py does."""

    @sgl.function
    def program(s: Any) -> None:
        s += "abc"
        branch = s.fork(1)[0]
        branch += sgl.gen("top", max_tokens=0, return_logprob=True, top_logprobs_num=3)
        top = branch.get_meta_info("top")["output_top_logprobs"][0]
        assert len(top) == 3 and top[0][0] >= top[1][0] >= top[2][0]
        assert branch["top"] == ""
        s += sgl.gen("next", max_tokens=1, temperature=0, return_logprob=True)
        assert s.get_meta_info("next")["output_token_logprobs"][0][1] == top[0][1]

    assert str(program.run(backend=runtime)).startswith("ProgramState(abc")


def test_least_and_most_tokens(runtime: sgl.Runtime) -> None:
    @sgl.function
    def program(s: Any, **params: Any) -> None:
        s += "x" + sgl.gen("a", logit_bias={256: 100}, **params)

    def tokens(**params: Any) -> int:
        state = program.run(backend=runtime, **params)
        return int(state.get_meta_info("a")["completion_tokens"])  # type: ignore[index]

    assert tokens(max_tokens=8) == 1, "the end, which the bias makes sure"
    assert tokens(max_tokens=8, min_tokens=5) == 6
    assert tokens(max_tokens=8, ignore_eos=True) == 8
