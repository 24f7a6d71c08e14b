"""An engine process as the front sees it: its socket, what is in flight there, and whether it is alive."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from sgl_like.errors import EngineError, EngineUnavailable, RequestError, SglError
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, OutputSink
from sgl_like.runtime.server.engine.framing import Frames
from sgl_like.runtime.server.engine.wire import (
    MAX_FRAME,
    Abort,
    Answer,
    Ask,
    EngineInfo,
    Failed,
    Outputs,
    Ping,
    Pong,
    Question,
    Ready,
    Start,
    Stop,
    Submit,
    encoder,
    front_decoder,
)

log = logging.getLogger(__name__)

CHILD = "sgl_like.runtime.server.engine.child"
_DIED = "the engine has stopped; the request may be sent again"


class EngineProcess:
    """One engine process. Everything happens on the event loop.

    Attributes:
        ready: its result is what the engine says about itself, or why there is none.
        gone: set when the connection has ended.
        waiting_pongs: pings that have no answer yet.
        busy_seconds: how long the engine's step had been running at the last pong.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()
        self.waiting_pongs = 0
        self.busy_seconds = 0.0
        self._process = process
        self._frames: Frames | None = None
        self._in_flight: dict[str, OutputSink] = {}
        self._given_up: set[str] = set()  # ended here, but perhaps not there
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()
        self._cutting: str | None = None  # the message with which everything is being ended

    @classmethod
    async def spawn(cls, start: Start) -> EngineProcess:
        """Start a process; it loads the model then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", CHILD, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,
                pass_fds=[theirs.fileno()],
                process_group=0,  # what the terminal sends to the front's is the front's to pass on
                env=_environment(os.environ),
            )
        engine = cls(process)
        engine._frames = await Frames.connect(ours, engine._receive, engine._lost)
        engine._send(encoder.encode(start))
        return engine

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._in_flight)

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """Start a request.

        Raises:
            RequestError: it cannot be sent, or its id is in use.
            EngineUnavailable: the process has just died.
        """
        rid = request.rid
        if self.gone.is_set():
            raise EngineUnavailable(_DIED)
        if rid in self._in_flight or rid in self._given_up:
            raise RequestError(f"a request with id {rid!r} is in flight already")
        try:
            frame = encoder.encode(Submit(request))
        except (UnicodeEncodeError, OverflowError, TypeError, NotImplementedError) as error:
            raise RequestError(f"the request has a value that cannot be used: {error}") from None
        if len(frame) > MAX_FRAME:
            raise RequestError(f"the request is too long: {len(frame)} bytes; the limit is {MAX_FRAME}")
        self._in_flight[rid] = receive
        self._send(frame)

    def abort(self, rid: str) -> None:
        """End a request early."""
        if rid in self._in_flight:
            self._send(encoder.encode(Abort([rid])))

    async def ask(self, what: Question, arguments: dict[str, Any]) -> Any:
        """Ask about the engine as a whole.

        Raises:
            EngineUnavailable: it died.
        """
        if self.gone.is_set():
            raise EngineUnavailable(_DIED)
        number = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            self._send(encoder.encode(Ask(number, what, arguments)))
            return await answer
        finally:
            del self._answers[number]

    def ping(self) -> None:
        """Ask whether it is there."""
        self.waiting_pongs += 1
        self._send(encoder.encode(Ping(next(self._numbers))))

    def give_up_all(self, error: SglError) -> None:
        """End everything that is in flight. Should the process go on, it is told, and what it says is not passed on."""
        ended, self._in_flight = self._in_flight, {}
        self._given_up.update(ended)
        if ended:
            self._send(encoder.encode(Abort(list(ended))))
        finish = FinishReason("error", message=str(error))
        for rid, receive in ended.items():
            _pass_on(receive, Output(rid, finish=finish, error=error))
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)

    async def cut_all(self, message: str, patience: float) -> None:
        """End all requests with what they have: the finish reason is "abort", and there is no error.

        Args:
            message: of the finish reason.
            patience: seconds that the engine gets; then they end without what it may have had.
        """
        self._cutting = message
        if self._in_flight:
            self._send(encoder.encode(Abort(list(self._in_flight))))
        until = asyncio.get_running_loop().time() + patience
        while self._in_flight and not self.gone.is_set() and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.01)
        ended, self._in_flight = self._in_flight, {}
        for rid, receive in ended.items():
            _pass_on(receive, Output(rid, finish=FinishReason("abort", message=message)))

    async def stop(self, patience: float) -> None:
        """End the process: in good order if it manages to within `patience` seconds."""
        self._send(encoder.encode(Stop()))
        try:
            await asyncio.wait_for(self.gone.wait(), patience)
        except TimeoutError:
            log.warning("the engine does not stop; it is killed")
        await self.kill()

    async def kill(self) -> None:
        """End the process now, and wait until it is gone."""
        self.kill_now()
        await asyncio.to_thread(self._process.wait)
        if self._frames is not None:
            self._frames.close()
        self._lost()

    def kill_now(self) -> None:
        """End the process, without waiting."""
        self._process.kill()

    def _send(self, frame: bytes) -> None:
        if self._frames is not None:
            self._frames.send(frame)

    def _receive(self, frame: bytes) -> None:
        try:
            message = front_decoder.decode(frame)
        except msgspec.MsgspecError:
            log.exception("the engine has sent nonsense; it is killed")
            self.kill_now()
            return
        match message:
            case Outputs(outputs):
                for output in outputs:
                    self._deliver(output)
            case Pong(_, busy):
                self.waiting_pongs -= 1
                self.busy_seconds = busy
            case Answer(number, value, error):
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(value) if error is None else answer.set_exception(error)
            case Ready(info):
                if not self.ready.done():
                    self.ready.set_result(info)
            case Failed(error):
                if not self.ready.done():
                    self.ready.set_exception(error)

    def _deliver(self, output: Output) -> None:
        rid = output.rid
        if output.finish is None:
            receive = self._in_flight.get(rid)
        else:
            receive = self._in_flight.pop(rid, None)
            self._given_up.discard(rid)
            if self._cutting is not None and output.finish.type == "abort":
                output = replace(output, error=None, finish=FinishReason("abort", message=self._cutting))
        if receive is not None:
            _pass_on(receive, output)

    def _lost(self) -> None:
        if self.gone.is_set():
            return
        self.gone.set()
        if not self.ready.done():
            self.ready.set_exception(EngineError("the engine's process ended while it started"))
            self.ready.exception()  # somebody may wait for it, but need not
        self.give_up_all(EngineUnavailable(_DIED))


def _pass_on(receive: OutputSink, output: Output) -> None:
    try:
        receive(output)
    except Exception:  # one request's trouble is not that of the others
        log.exception("the receiver of request %s failed", output.rid)


def _environment(present: Mapping[str, str]) -> dict[str, str]:
    """That of this process, and the same sgl_like: it may have been found by other means than being installed."""
    env = dict(present)
    root = str(Path(__file__).resolve().parents[4])
    if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        env["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [env.get("PYTHONPATH")])])
    return env
