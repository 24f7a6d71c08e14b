"""Many coroutines that may go on at once: the loop runs other things in between."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import sgl_like as sgl
from sgl_like.frontend.bodies.turns import SLICE, finish, turn
from tests.support.frontend_fake_backend import FakeBackend

MANY = 10 * SLICE


async def most_at_once(went_on: list[int], until: int) -> int:
    """The most entries that `went_on` gets in one iteration of the loop."""
    most = before = 0
    while before < until:
        await asyncio.sleep(0)
        most, before = max(most, len(went_on) - before), len(went_on)
    return most


def test_those_who_begin_take_turns_in_their_order() -> None:
    begun: list[int] = []

    async def one(number: int) -> None:
        await turn()
        begun.append(number)

    async def main() -> int:
        most = asyncio.create_task(most_at_once(begun, MANY))
        await asyncio.gather(*map(one, range(MANY)))
        return await most

    assert asyncio.run(main()) <= SLICE
    assert begun == list(range(MANY))


def test_those_who_are_woken_take_turns_but_for_the_cancelled() -> None:
    woken: list[int] = []

    async def one(number: int, future: asyncio.Future[None]) -> None:
        await future
        woken.append(number)

    async def main() -> int:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(MANY)]
        tasks = [asyncio.create_task(one(*each)) for each in enumerate(futures)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        thread = threading.Thread(target=lambda: [finish(future) for future in futures])
        thread.start()
        thread.join()
        most = await most_at_once(woken, MANY - 1)
        await asyncio.gather(*tasks, return_exceptions=True)
        return most

    assert asyncio.run(main()) <= SLICE
    assert woken == [0, *range(2, MANY)]


def test_a_closed_loop_is_not_woken_and_not_kept() -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()
    loop.close()
    finish(future)
    gone = weakref.ref(loop)
    del loop, future
    gc.collect()
    assert gone() is None


def test_programs_begin_and_go_on_in_turns() -> None:
    steps: list[str] = []

    @sgl.function
    async def program(s: sgl.ProgramState) -> None:
        steps.append("begun")
        s += "?" + sgl.gen("x")
        await s.aget("x")
        steps.append("went on")

    async def main() -> int:
        most = asyncio.create_task(most_at_once(steps, 2 * MANY))
        backend = FakeBackend()
        states = await asyncio.gather(*(program.arun(backend=backend) for _ in range(MANY)))
        assert all(state["x"] for state in states)
        return await most

    assert asyncio.run(main()) <= 2 * SLICE  # one slice of each kind


def test_a_program_can_be_cancelled_before_its_turn() -> None:
    begun: list[int] = []

    @sgl.function
    async def program(s: sgl.ProgramState, number: int) -> None:
        begun.append(number)

    async def main() -> sgl.ProgramState:
        backend = FakeBackend()
        states = [program.astream(number, backend=backend) for number in range(MANY)]
        await asyncio.sleep(0)
        states[-1].cancel()
        await asyncio.gather(*(state for state in states))
        return states[-1]

    assert isinstance(asyncio.run(main()).error(), sgl.ProgramError)
    assert begun == list(range(MANY - 1))
