"""The engine process's side of the constraint worker: every constraint that has not been seen is tried there first.

All of them, also small ones: size says little (the 19 characters of ``(a{1,99}b?){1,99}`` are harmless, the 40 of an
ambiguous ``s ::= s s | s s s | "a" | "b" | ""`` are not). Measured with the embedded model on 2 cores, for constraints
not seen before: a regex 3 ms, a JSON Schema of 400 characters 8 ms; known ones 0.1 ms. A trial process for each of them
took 14 and 31 ms, hence forks that are used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import socket
import subprocess
import sys
from collections import OrderedDict

from sgl_like.errors import EngineUnavailable, SglError
from sgl_like.runtime.sampling_params import CONSTRAINTS, SamplingParams
from sgl_like.runtime.server.engine.constraint_worker import Begin, Check, Checked, checked_decoder, encoder
from sgl_like.runtime.server.engine.framing import Frames
from sgl_like.runtime.server.engine.wire import EngineInfo, error_of

log = logging.getLogger(__name__)

WORKER = "sgl_like.runtime.server.engine.constraint_worker"
MEMORY = 512 * 1024 * 1024
"""Bytes that one constraint may take there."""
REMEMBERED = 8192


class ConstraintGate:
    """Lets constraints through that were tried and found good. Everything happens on the event loop.

    Args:
        info: of the engine.
        seconds: that one may take.
        memory: bytes that one may take.

    Attributes:
        asked: how many have been sent to the worker.
    """

    def __init__(self, info: EngineInfo, seconds: float, memory: int = MEMORY) -> None:
        self.asked = 0
        self._begin = Begin(info.model_path, info.vocab_size, seconds, memory)
        self._known: OrderedDict[bytes, SglError | None] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[SglError | None]] = {}
        self._by_number: dict[int, tuple[bytes, asyncio.Future[SglError | None]]] = {}
        self._numbers = itertools.count()
        self._frames: Frames | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the worker."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the worker, if none lives."""
        async with self._starting:
            if self._frames is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        WORKER,
                        str(theirs.fileno()),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            self._frames = await Frames.connect(ours, self._receive, self._lost)
            self._frames.send(encoder.encode(self._begin))

    async def check(self, params: SamplingParams) -> None:
        """Wait until it is known that constraints are good.

        Raises:
            ConstraintError: one is not.
            EngineUnavailable: it cannot be found out now.
        """
        key = _digest(params)
        if key in self._known:
            self._known.move_to_end(key)
            error = self._known[key]
        else:
            error = await self._ask(key, params)
        if error is not None:
            raise error_of(type(error).__name__, str(error))

    async def _ask(self, key: bytes, params: SamplingParams) -> SglError | None:
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.get_running_loop().create_future()
            await self.start()
            number = next(self._numbers)
            self.asked += 1
            self._by_number[number] = key, asked
            assert self._frames is not None
            self._frames.send(encoder.encode(Check(number, params)))
        return await asyncio.shield(asked)

    def close(self) -> None:
        """End the worker."""
        if self._frames is not None:
            self._frames.close()

    def _receive(self, frame: bytes) -> None:
        checked: Checked = checked_decoder.decode(frame)
        key, asked = self._by_number.pop(checked.number)
        del self._asked[key]
        if checked.final:
            self._known[key] = checked.error
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        asked.set_result(checked.error)

    def _lost(self) -> None:
        """The worker itself has died; it is started again with the next constraint."""
        log.info("the constraint worker has ended")
        self._frames = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        error = EngineUnavailable("constraints cannot be compiled now; the request may be sent again")
        for _, asked in self._by_number.values():
            asked.set_result(error)
        self._by_number.clear()
        self._asked.clear()


def _digest(params: SamplingParams) -> bytes:
    """Equal for parameters with equal constraints."""
    parts = [getattr(params, name) or "" for name in CONSTRAINTS]
    parts += [params.property_order, params.whitespace, *params.stop_regex]
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()
