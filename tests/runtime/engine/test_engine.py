"""The public engine: SGLang's offline interface, threads, asyncio, shutdown, and errors that say what is wrong."""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from sgl_like.errors import (
    ConfigError,
    DeadlineExceeded,
    EngineClosedError,
    PromptTooLongError,
    RequestAborted,
    RequestError,
)
from sgl_like.runtime.engine.engine import Engine
from sgl_like.runtime.protocol import GenerateRequest, Output
from sgl_like.runtime.sampling_params import SamplingParams
from tests.support.small_model import make_model

GREEDY = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with Engine(folder, dtype="float32") as engine:
        yield engine


def test_one_text(engine: Engine) -> None:
    out = engine.generate("hello", GREEDY)
    assert set(out) == {"text", "output_ids", "meta_info"}
    assert len(out["output_ids"]) == 12 and out["text"] == engine.tokenizer.decode(out["output_ids"])
    meta = out["meta_info"]
    assert (meta["prompt_tokens"], meta["completion_tokens"]) == (5, 12)
    assert meta["finish_reason"] == {"type": "length"}
    assert engine.generate("hello", GREEDY)["meta_info"]["cached_tokens"] == 4
    engine.check_invariants()


def test_many_prompts_keep_their_order_and_parameters(engine: Engine) -> None:
    prompts = [f"prompt {i}" for i in range(20)]
    singles = [engine.generate(p, {**GREEDY, "max_new_tokens": i + 1}) for i, p in enumerate(prompts)]
    batch = engine.generate(prompts, [{**GREEDY, "max_new_tokens": i + 1} for i in range(20)])
    assert [b["output_ids"] for b in batch] == [s["output_ids"] for s in singles]
    ids = [engine.tokenizer.encode(p) for p in prompts]
    assert [o["text"] for o in engine.generate(input_ids=ids[:3], sampling_params=GREEDY)] == [
        engine.generate(p, GREEDY)["text"] for p in prompts[:3]
    ]
    assert (
        engine.generate(input_ids=ids[0], sampling_params=GREEDY)["text"]
        == engine.generate(prompts[0], GREEDY)["text"]
    )
    assert engine.generate([]) == []


def test_stream(engine: Engine) -> None:
    chunks = list(engine.generate("stream", GREEDY, stream=True))
    assert len(chunks) > 3 and chunks[-1]["text"] == engine.generate("stream", GREEDY)["text"]
    for before, after in itertools.pairwise(chunks):
        assert after["text"].startswith(before["text"])
    many = list(engine.generate(["a", "b"], GREEDY, stream=True))
    assert {chunk["index"] for chunk in many} == {0, 1}


def test_leaving_a_stream_ends_its_request(engine: Engine) -> None:
    stream = engine.generate("x", {**GREEDY, "max_new_tokens": 200}, stream=True)
    next(stream)
    stream.close()
    stats = engine.stats()
    assert stats["running_requests"] == stats["waiting_requests"] == 0


def test_async(engine: Engine) -> None:
    async def work() -> list[Any]:
        whole = await asyncio.gather(*(engine.async_generate(f"p{i}", GREEDY) for i in range(8)))
        last = None
        async for chunk in await engine.async_generate("p0", GREEDY, stream=True):
            last = chunk
        return [*whole, last]

    results = asyncio.run(work())
    assert [r["text"] for r in results] == [engine.generate(f"p{i}", GREEDY)["text"] for i in (*range(8), 0)]


def test_cancelling_a_task_ends_its_request(engine: Engine) -> None:
    async def work() -> None:
        task = asyncio.create_task(engine.async_generate("x", {**GREEDY, "max_new_tokens": 240}))
        while not engine.stats()["running_requests"]:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    stats = engine.stats()
    assert stats["running_requests"] == stats["waiting_requests"] == 0


def test_seeded_sampling_does_not_depend_on_the_batch(engine: Engine) -> None:
    params = {"temperature": 1.0, "max_new_tokens": 10, "seed": 3, "ignore_eos": True}
    alone = engine.generate("dice", params)["output_ids"]
    others = [{**GREEDY, "temperature": 1.3}] * 5
    batch = engine.generate(["dice", "a", "b", "c", "d", "e"], [params, *others])
    assert batch[0]["output_ids"] == alone
    assert engine.generate("dice", {**params, "seed": 4})["output_ids"] != alone


def test_requests_from_many_threads(engine: Engine) -> None:
    expected = [engine.generate(f"t{i}", GREEDY)["text"] for i in range(4)]
    results: dict[int, list[str]] = {}

    def work(i: int) -> None:
        results[i] = [engine.generate(f"t{i}", GREEDY)["text"] for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: [expected[i]] * 5 for i in range(4)}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "give either prompt"),
        ({"prompt": "a", "input_ids": [1]}, "exactly one of them"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"input_ids": []}, "the prompt is empty"),
        ({"prompt": ["a", 3]}, r"prompt\[1\] must be a string, not int"),
        ({"input_ids": [1, 999]}, r"input_ids\[1\] is 999, outside the vocabulary of 260"),
        ({"input_ids": [1, -1]}, r"input_ids\[1\] is -1"),
        ({"input_ids": [1, "x"]}, "flat list of integers"),
        ({"input_ids": [[1, [2]]]}, "flat list of integers"),
        ({"input_ids": [2**70]}, "flat list of integers"),
        ({"prompt": "a", "sampling_params": {"stop_token_ids": [260]}}, "stop_token_ids: 260 is outside"),
        ({"prompt": ["a", "b"], "sampling_params": [{}]}, "a list of 1 for 2 prompts"),
        ({"prompt": "a", "sampling_params": {"top_q": 1}}, "did you mean"),
        ({"prompt": "a", "sampling_params": {"regex": "("}}, "regex"),
        ({"prompt": "a", "sampling_params": {"json_schema": "{"}}, "JSON"),
    ],
)
def test_bad_calls(engine: Engine, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        engine.generate(**arguments)
    engine.check_invariants()


def test_prompts_that_cannot_fit(engine: Engine, folder: Path) -> None:
    with pytest.raises(PromptTooLongError, match="context length of 256"):
        engine.generate(input_ids=[1] * 256)
    with Engine(folder, dtype="float32", kv_cache_memory=50 * 2 * 2 * 2 * 8 * 4) as small:
        assert small.stats()["kv_slots"] == 50
        with pytest.raises(PromptTooLongError, match=r"the prompt has 60 tokens.* KV pool of 50"):
            small.generate(input_ids=[1] * 60)
        out = small.generate(input_ids=[1] * 45, sampling_params=GREEDY)
        assert len(out["output_ids"]) == 5


def test_unknown_and_bad_options(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unknown engine option 'max_runing_requests'; did you mean"):
        Engine(folder, max_runing_requests=3)
    with pytest.raises(ConfigError, match="max_batch_tokens must be an integer of at least 1, not 0"):
        Engine(folder, max_batch_tokens=0)
    with pytest.raises(ConfigError, match="holds no token"):
        Engine(folder, kv_cache_memory=10)
    with pytest.raises(ConfigError, match="not 'int3'"):
        Engine(folder, quantization="int3")


def test_submit_gives_each_request_one_terminal_event_also_on_abort_and_shutdown(folder: Path) -> None:
    engine = Engine(folder, dtype="float32", max_running_requests=2)
    events: dict[str, list[Output]] = {}
    all_ended = threading.Event()

    def receive(output: Output) -> None:
        events.setdefault(output.rid, []).append(output)
        if sum(o[-1].is_terminal for o in events.values()) == 6:
            all_ended.set()

    params = SamplingParams(max_new_tokens=200, ignore_eos=True)
    for i in range(6):
        engine.submit(GenerateRequest([i + 1], params, rid=str(i)), receive)
    with pytest.raises(RequestError, match="'5' is in flight already"):
        engine.submit(GenerateRequest([1], params, rid="5"), receive)
    engine.abort("1")
    engine.abort("4")
    engine.abort("nobody")
    engine.shutdown()
    engine.shutdown()
    assert all_ended.wait(10)
    assert [len(events[str(i)]) for i in range(6)] == [1] * 6
    assert isinstance(events["4"][0].error, RequestAborted)
    assert isinstance(events["5"][0].error, EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.generate("x")


def test_a_full_queue_refuses(folder: Path) -> None:
    with Engine(folder, dtype="float32", max_queued_requests=3) as engine:
        with pytest.raises(RequestError, match="the queue is full: 3 requests"):
            engine.generate(["a", "b", "c", "d"], {**GREEDY, "max_new_tokens": 200})
        engine.stats()  # the three that were accepted have been cancelled by now
        assert engine.generate("e", GREEDY)["text"]


def test_flush_cache(engine: Engine) -> None:
    engine.generate("something to forget", GREEDY)
    assert engine.stats()["kv_evictable"] > 0 and engine.flush_cache() is True
    stats = engine.stats()
    assert stats["kv_free"] == stats["kv_slots"] and engine.flush_cache() is True


def test_an_engine_that_is_forgotten_ends_its_thread(folder: Path) -> None:
    engine = Engine(folder, dtype="float32")
    engine.generate("x", GREEDY)
    loop = weakref.ref(engine._loop)
    threads = [t for t in threading.enumerate() if t.name == "sgl-engine"]
    del engine
    gc.collect()
    assert loop() is None
    assert sum(t.is_alive() for t in threads) == len(threads) - 1


def test_leaving_the_interpreter_with_an_engine_at_work_is_clean(folder: Path) -> None:
    code = (
        "import sys\n"
        "from sgl_like.runtime.engine.engine import Engine\n"
        "engine = Engine(sys.argv[1])\n"
        "stream = engine.generate('x', {'max_new_tokens': 250, 'ignore_eos': True}, stream=True)\n"
        "print(len(next(stream)['output_ids']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_deadline_counts_from_submission(engine: Engine) -> None:
    ended: Future[Output] = Future()

    def receive(output: Output) -> None:
        if output.is_terminal:
            ended.set_result(output)

    params = SamplingParams(max_new_tokens=200, ignore_eos=True)
    engine.submit(GenerateRequest([1], params, deadline=1e-9), receive)
    output = ended.result(60)
    assert isinstance(output.error, DeadlineExceeded) and "1e-09 s" in str(output.error)
    engine.check_invariants()


def test_priority_deadline_and_namespace_reach_the_engine(folder: Path) -> None:
    params = {"max_new_tokens": 200, "temperature": 0, "ignore_eos": True}
    with Engine(folder) as engine:
        prompt = list(range(1, 60))
        engine.generate(input_ids=prompt, sampling_params={"max_new_tokens": 1})
        cached = [
            engine.generate(
                input_ids=prompt, sampling_params={"max_new_tokens": 1}, namespace=name, priority=3
            )
            for name in ("", "other")
        ]
        assert [each["meta_info"]["cached_tokens"] for each in cached] == [58, 0]
        with pytest.raises(DeadlineExceeded):
            engine.generate(input_ids=prompt, sampling_params=params, deadline=1e-6)
        with pytest.raises(RequestError, match="priority must be an integer"):
            engine.generate(input_ids=prompt, priority="high")  # type: ignore[arg-type]


def test_what_still_holds_the_core_after_a_shutdown_does_not_hold_its_tensors(folder: Path) -> None:
    """Or a daemon thread may free them while Python is taken down, which aborts the process."""
    engine = Engine(folder)
    core = engine._loop.call(lambda core: core)
    runner = weakref.ref(core._runner)
    engine.shutdown()
    assert runner() is None
    assert core is not None
