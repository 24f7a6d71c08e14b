"""The engine's process: ``python -m sgl_like.runtime.server.engine.child FD``, FD being its end of a socket pair.

    event loop (main thread)   reads frames, answers pings, sends what the engine has put out
    engine's own thread        steps; its outputs wait in a queue until the step ends, then wake the loop once
    pool threads               what takes long before a request can run: compiling its constraint

If the front goes, so does this process, at once: by the end of the socket, and by the kernel's own signal.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import uvloop

from sgl_like.errors import RequestAborted, RequestError, SglError
from sgl_like.runtime.protocol import FinishReason, FinishType, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.framing import Frames
from sgl_like.runtime.server.engine.garbage import collect_when_idle
from sgl_like.runtime.server.engine.gate import ConstraintGate
from sgl_like.runtime.server.engine.hosted import HostedEngine
from sgl_like.runtime.server.engine.lifetime import die_with_parent
from sgl_like.runtime.server.engine.wire import (
    MAX_FRAME,
    Abort,
    Answer,
    Ask,
    Failed,
    Outputs,
    Ping,
    Pong,
    Ready,
    Start,
    Stop,
    Submit,
    encoder,
    engine_decoder,
    plain_error,
)
from sgl_like.runtime.server.observe.logs import start_logging

log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
"""After which a thread that runs Python lets another one have a go: steps are not to wait for a compiling thread."""
COMPILERS = 2
"""Threads that compile constraints."""


class Child:
    """Serves one connection.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._frames: Frames | None = None
        self._engine: HostedEngine | None = None
        self._gate: ConstraintGate | None = None
        self._outputs: deque[Output] = deque()
        self._woken = False
        self._preparing: dict[str, _Preparing] = {}
        self._compilers = ThreadPoolExecutor(COMPILERS, thread_name_prefix="compile")
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, sock: socket.socket) -> None:
        """Serve; does not return, the process ends with the connection."""
        self._frames = await Frames.connect(sock, self._receive, lambda: os._exit(1))
        await self._loop.create_future()

    def _receive(self, frame: bytes) -> None:
        try:
            message = engine_decoder.decode(frame)
        except msgspec.MsgspecError as error:
            self._refuse(frame, error)
            return
        match message:
            case Submit(request):
                self._submit(request)
            case Abort(rids):
                for rid in rids:
                    self._abort(rid)
            case Ping(number):
                busy = 0.0 if self._engine is None else self._engine.activity.busy_seconds
                self._send(Pong(number, busy))
            case Ask():
                self._begin(self._answer(message))
            case Start():
                atexit.register(start_logging(message.log_level, message.log_format))
                self._begin(self._start(message))
            case Stop():
                self._begin(self._stop())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, start: Start) -> None:
        try:
            with ThreadPoolExecutor(1) as aside:
                self._engine = await self._loop.run_in_executor(aside, _load, start)
        except SglError as error:
            self._fail(error)
        except Exception as error:
            log.exception("the engine cannot start")
            self._fail(plain_error(error))
        else:
            self._engine.activity.turned = self._turned
            info = self._engine.info()
            if start.stub is None and start.compile_seconds > 0:
                self._gate = ConstraintGate(info, start.compile_seconds)
                await self._gate.start()
            activity = self._engine.activity
            self._begin(collect_when_idle(lambda: activity.busy_seconds > 0))
            self._send(Ready(info))

    def _fail(self, error: SglError) -> None:
        self._send(Failed(error))
        assert self._frames is not None
        self._frames.close()  # which ends the process

    async def _stop(self) -> None:
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown)
        os._exit(0)

    # Requests

    def _submit(self, request: GenerateRequest) -> None:
        params = request.params
        if not (params.is_constrained or params.stop_regex or params.bad_words):
            self._submit_now(request)
        elif request.rid in self._preparing:
            self._end(request.rid, RequestError(f"a request with id {request.rid!r} is in flight already"))
        else:
            self._preparing[request.rid] = preparing = _Preparing(self._outputs)
            self._begin(self._prepare_and_submit(request, preparing))

    def _submit_now(self, request: GenerateRequest) -> None:
        assert self._engine is not None
        try:
            self._engine.submit(request, self._outputs.append)
        except Exception as error:
            self._end(request.rid, _known(error))

    async def _prepare_and_submit(self, request: GenerateRequest, preparing: _Preparing) -> None:
        assert self._engine is not None
        try:
            if self._gate is not None and (request.params.is_constrained or request.params.stop_regex):
                await self._gate.check(request.params)
            if preparing.is_aborted():
                return
            await self._loop.run_in_executor(
                self._compilers, self._submit_prepared, request, preparing.deliver
            )
        except Exception as error:
            preparing.deliver(_error_output(request.rid, _known(error)))
            self._turned()
        else:
            if preparing.is_aborted():
                self._engine.abort(request.rid)
        finally:
            del self._preparing[request.rid]

    def _submit_prepared(self, request: GenerateRequest, on_output: OutputSink) -> None:
        """On a thread of the pool: what the step loop would wait for is found here."""
        assert self._engine is not None
        self._engine.prepare(request.params)
        self._engine.submit(request, on_output)

    def _abort(self, rid: str) -> None:
        assert self._engine is not None
        preparing = self._preparing.get(rid)
        if preparing is None:
            self._engine.abort(rid)
        else:
            preparing.abort(rid)
            self._turned()

    def _end(self, rid: str, error: SglError) -> None:
        self._outputs.append(_error_output(rid, error))
        self._turned()

    # Outputs

    def _turned(self) -> None:
        """On the engine's thread after each step, and here."""
        if self._outputs and not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        self._woken = False  # before taking them: whatever comes now wakes again
        waiting, outputs = self._outputs, []
        while waiting:
            outputs.append(waiting.popleft())
        if outputs:
            self._send_outputs(outputs)

    def _send_outputs(self, outputs: list[Output]) -> None:
        frame = encoder.encode(Outputs(outputs))
        if len(frame) <= MAX_FRAME:
            assert self._frames is not None
            self._frames.send(frame)
        elif len(outputs) > 1:
            half = len(outputs) // 2
            self._send_outputs(outputs[:half])
            self._send_outputs(outputs[half:])
        else:
            error = RequestError("the output is too long to be sent; ask for fewer log-probabilities")
            self._abort(outputs[0].rid)
            self._send(Outputs([_error_output(outputs[0].rid, error)]))

    async def _answer(self, ask: Ask) -> None:
        assert self._engine is not None
        try:
            value = await asyncio.to_thread(self._engine.answer, ask.what, ask.arguments)
            self._send(Answer(ask.number, value))
        except Exception as error:
            if not isinstance(error, SglError):
                log.exception("the question %r failed", ask.what)
            self._send(Answer(ask.number, error=plain_error(error)))

    def _send(self, message: msgspec.Struct) -> None:
        assert self._frames is not None
        self._frames.send(encoder.encode(message))

    def _refuse(self, frame: bytes, error: msgspec.MsgspecError) -> None:
        """Of a message that is not what it should be, end the request, if it is one."""
        try:
            rid = msgspec.msgpack.decode(frame)["request"]["rid"]
        except (msgspec.MsgspecError, LookupError, TypeError):
            log.error("the front has sent nonsense: %s", error)
        else:
            self._end(str(rid), RequestError(str(error)))


class _Preparing:
    """A request that the engine does not know yet, because its constraint is being compiled: it can be aborted, and
    then has its terminal output at once.
    """

    def __init__(self, outputs: deque[Output]) -> None:
        self._aborted = False
        self._outputs = outputs
        self._ended = False
        self._lock = threading.Lock()

    def deliver(self, output: Output) -> None:
        """An output of the request, unless it has ended."""
        with self._lock:
            if not self._ended:
                self._ended = output.is_terminal
                self._outputs.append(output)

    def is_aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._aborted

    def abort(self, rid: str) -> None:
        """End the request."""
        self._aborted = True
        self.deliver(_error_output(rid, RequestAborted("the request was cancelled"), "abort"))


def _error_output(rid: str, error: SglError, kind: FinishType = "error") -> Output:
    return Output(rid, finish=FinishReason(kind, message=str(error)), error=error)


def _known(error: Exception) -> SglError:
    if not isinstance(error, SglError):
        log.error("a request could not be started", exc_info=error)
    return plain_error(error)


def _load(start: Start) -> HostedEngine:
    engine: HostedEngine
    if start.stub is not None:
        from sgl_like.runtime.server.engine.stub import StubEngine

        engine = StubEngine(start.model, start.stub)
    else:
        from sgl_like.runtime.server.engine.model import ModelEngine

        engine = ModelEngine(start.model, start.options)
    engine.warm_up()
    return engine


def main() -> None:
    """The process."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # the front decides: it may have to drain first
        signal.signal(number, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)  # kill -USR1 PID: where all its threads are
    sys.setswitchinterval(SWITCH_SECONDS)
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    async def run() -> None:
        await Child(asyncio.get_running_loop()).run(socket.socket(fileno=int(sys.argv[1])))

    uvloop.run(run())


if __name__ == "__main__":
    main()
