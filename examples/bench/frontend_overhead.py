"""What running a program costs besides the model: many programs at once on a backend that only waits.

    python examples/bench/frontend_overhead.py                          # async programs, and plain ones in run_batch
    python examples/bench/frontend_overhead.py --peer VENV/bin/python   # and SGLang's frontend on the same stub

Each program has so many gens, and each gen is answered after a fixed time by the stub, whose own work is small. What is
printed per gen is all CPU time of the process; what the stub takes alone is printed, too. A ticking task measures how
long the event loop was held up.

The peer is `sglang.lang` of that interpreter. SGLang's package imports its server, which a machine without a GPU cannot
have; so its `lang` is imported by itself, which takes: pip install --no-deps sglang; pip install numpy tqdm requests
pydantic pybase64 IPython.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from types import ModuleType
from typing import Any

ANSWER = "some words of an answer"


class Peak:
    """The most threads at any time, and the longest time that a loop was held up."""

    def __init__(self) -> None:
        self.threads = 0
        self.stall = 0.0
        self.ended = False

    def watch_threads(self) -> None:
        """To be run on a thread of its own."""
        while not self.ended:
            self.threads = max(self.threads, threading.active_count() - 1)
            time.sleep(0.002)

    async def watch_loop(self) -> None:
        """To be run as a task."""
        while not self.ended:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self.stall = max(self.stall, time.perf_counter() - before - 0.001)


def measured(name: str, gens: int, work: Callable[[Peak], None]) -> None:
    """Run `work` and print what it took."""
    peak = Peak()
    watcher = threading.Thread(target=peak.watch_threads)
    gc.collect()
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    work(peak)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak.ended = True
    watcher.join()
    stall = f"  longest stall {peak.stall * 1e3:5.1f} ms" if peak.stall else ""
    print(
        f"{name:34} {cpu / gens * 1e6:7.1f} us/gen  {wall:6.2f} s  {peak.threads:5} threads{stall}",
        flush=True,
    )


def ours(programs: int, gens: int, latency: float) -> None:
    """Async programs with ``abatch``, plain ones with ``run_batch``."""
    import sgl_like as sgl
    from sgl_like.frontend.backend.base import Backend, Handle, Segment, Sink
    from sgl_like.runtime.protocol import FinishReason, Output

    class Call:
        def cancel(self) -> None: ...

    class Stub(Backend):
        """Answers every request `latency` seconds after it came, from one thread."""

        model_name = "stub"  # type: ignore[assignment]
        supported_params = frozenset({"max_new_tokens", "temperature"})  # type: ignore[assignment]

        def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
            return [1] * (sum(len(segment.text) for segment in segments) // 4 + 1)

        def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
            return f"<{role}>", "<end>"

        def submit(
            self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
        ) -> Handle:
            output = Output("rid", ANSWER, (1, 2, 3, 4, 5, 6), FinishReason("stop", "x"))
            self.answers.call_later(latency, lambda: sink(output))
            return Call()

        def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
            raise NotImplementedError

        def flush_cache(self) -> bool:
            return True

        def shutdown(self) -> None: ...

        def __init__(self) -> None:
            super().__init__()
            from sgl_like.frontend.bodies.executor import Executor

            self.answers = Executor("stub")

    @sgl.function
    async def asynchronous(s: sgl.ProgramState, word: str) -> None:
        for i in range(gens):
            s += f"{word} step {i}: " + sgl.gen(f"a{i}", max_tokens=16)
            await s.aget(f"a{i}")

    @sgl.function
    def plain(s: sgl.ProgramState, word: str) -> None:
        for i in range(gens):
            s += f"{word} step {i}: " + sgl.gen(f"a{i}", max_tokens=16)

    rows = [(f"w{i}",) for i in range(programs)]
    total = programs * gens

    async def run(peak: Peak) -> None:
        ticking = asyncio.create_task(peak.watch_loop())
        states = await asynchronous.abatch(rows, backend=Stub(), max_concurrency=programs)
        peak.ended = True
        await ticking
        assert all(state[f"a{gens - 1}"] == ANSWER for state in states)

    async def one_by_one(peak: Peak) -> None:
        ticking, stub = asyncio.create_task(peak.watch_loop()), Stub()
        await asyncio.gather(*(asynchronous.arun(*row, backend=stub) for row in rows))
        peak.ended = True
        await ticking

    def batch(threads: int) -> Callable[[Peak], None]:
        def work(peak: Peak) -> None:
            states = plain.run_batch(rows, backend=Stub(), num_threads=threads)
            assert all(state[f"a{gens - 1}"] == ANSWER for state in states)

        return work

    def stub_alone(peak: Peak) -> None:
        """The same requests without programs: what is not ours."""
        stub, done, left = Stub(), threading.Event(), [gens * programs]

        def chain(still: int) -> None:
            def sink(output: Output) -> None:
                left[0] -= 1
                if still > 1:
                    chain(still - 1)
                if left[0] == 0:
                    done.set()

            stub.submit(tuple(stub.encode([Segment("a prompt of the usual length", True)])), {}, sink, False)

        for _ in range(programs):
            chain(gens)
        done.wait()

    asyncio.run(run(Peak()))  # warm
    measured("the stub alone", total, stub_alone)
    measured("sgl_like async, gather of arun", total, lambda peak: asyncio.run(one_by_one(peak)))
    measured("sgl_like async, abatch", total, lambda peak: asyncio.run(run(peak)))
    measured("sgl_like plain, 64 threads", total, batch(64))


def sglang(programs: int, gens: int, latency: float) -> None:
    """SGLang's frontend on the same stub: a blocking ``generate`` is all that it knows."""
    spec = find_spec("sglang")
    assert spec is not None and spec.submodule_search_locations, "sglang is not installed there"
    package = ModuleType("sglang")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["sglang"] = package
    from sglang.lang.backend.base_backend import BaseBackend  # type: ignore[import-not-found, unused-ignore]
    from sglang.lang.ir import SglFunction, SglGen  # type: ignore[import-not-found, unused-ignore]

    class Stub(BaseBackend):  # type: ignore[misc, unused-ignore]
        def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
            time.sleep(latency)
            return ANSWER, {}

    def program(s: Any, word: str) -> None:
        for i in range(gens):
            s += f"{word} step {i}: " + SglGen(f"a{i}", max_new_tokens=16)

    function = SglFunction(program)
    rows = [(f"w{i}",) for i in range(programs)]
    for threads in ("auto", programs):

        def work(peak: Peak, threads: Any = threads) -> None:
            states = function.run_batch(rows, backend=Stub(), num_threads=threads)
            assert all(state[f"a{gens - 1}"] == ANSWER for state in states)

        name = f"sglang run_batch, {threads} threads"
        measured(name, programs * gens, work)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--gens", type=int, default=5)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds until a gen is answered")
    parser.add_argument("--peer", help="a Python with sglang.lang")
    parser.add_argument("--as-peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    (sglang if args.as_peer else ours)(args.programs, args.gens, args.latency)
    if args.peer:
        command = [
            args.peer,
            __file__,
            "--as-peer",
            "--programs",
            str(args.programs),
            "--gens",
            str(args.gens),
        ]
        subprocess.run([*command, "--latency", str(args.latency)], check=True)


if __name__ == "__main__":
    main()
