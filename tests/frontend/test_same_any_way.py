"""What a program writes does not depend on how it is run (b#35, c#11): on the embedded model, greedy and with seeds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sgl_like as sgl

DEMO = Path(sgl.__file__).parent / "assets" / "demo"
SCHEMA = json.loads((DEMO / "snips.schema.json").read_text("utf-8"))
ROWS = [{"utterance": line} for line in (DEMO / "utterances.txt").read_text("utf-8").splitlines()[:8]]


@pytest.fixture(scope="module", params=["process", "http"])
def runtime(request: pytest.FixtureRequest) -> Iterator[sgl.Runtime | sgl.RuntimeEndpoint]:
    """An engine of this process, as such and over HTTP."""
    with sgl.Runtime() as runtime:
        if request.param == "process":
            yield runtime
            return
        with sgl.RuntimeEndpoint(runtime.url) as endpoint:
            yield endpoint


@sgl.function
def extract(s: Any, utterance: str) -> str:
    s += sgl.system("Turn the utterance into JSON.")
    s += sgl.user(utterance)
    s += sgl.assistant(sgl.gen("json", max_tokens=128, json_schema=SCHEMA, property_order="any"))
    s += sgl.user("Again, in other words.")
    s += sgl.assistant(sgl.gen("free", max_tokens=8) + sgl.select("choice", ["yes", "no", "maybe"]))
    return str(s["json"])


def seen(state: sgl.ProgramState) -> tuple[Any, ...]:
    return state.text(), state["json"], state["free"], state["choice"], state.ret_value


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"temperature": 1.2, "seed": 5}], ids=["greedy", "seed"]
)
def test_run_batch_stream_and_the_rest(
    runtime: sgl.Runtime | sgl.RuntimeEndpoint, options: dict[str, Any], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"backend": runtime, **options}
    alone = []
    for row in ROWS:
        runtime.flush_cache()
        alone.append(seen(extract.run(**row, **given)))
    assert len(set(alone)) == len(ROWS)
    assert [seen(extract.run(**row, **given)) for row in ROWS] == alone, "with a warm cache"
    streamed = [extract.stream(**row, **given) for row in ROWS]
    assert ["".join(state.text_iter()) for state in streamed] == [text for text, *_ in alone]
    assert [seen(state) for state in streamed] == alone
    for threads in (1, 3, 64):
        assert [seen(state) for state in extract.run_batch(ROWS, num_threads=threads, **given)] == alone
    by_end = extract.run_batch(ROWS, as_completed=True, **given)
    assert [seen(state) for state in sorted(by_end, key=lambda state: state.row or 0)] == alone

    async def at_once() -> list[sgl.ProgramState]:
        return await extract.abatch(ROWS, **given)

    assert [seen(state) for state in asyncio.run(at_once())] == alone
    checkpoint = tmp_path / "x.jsonl"
    extract.run_batch(ROWS[:5], checkpoint=checkpoint, **given)
    assert [seen(state) for state in extract.run_batch(ROWS, checkpoint=checkpoint, **given)] == alone
