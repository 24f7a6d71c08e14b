"""The process in which constraints are tried before the engine sees them (see `vetting.py`).

    engine's process ── Begin, Check ──> this process ── Check ──> a fork, which tries one at a time,
                     <──── Checked ────               <─ Checked ─ and is killed if that takes too long

It holds a tokenizer's vocabulary and the machine code of the constraint engine, has one thread, and compiles nothing
itself, so a fork costs milliseconds, and killing one costs nothing but what it has learned.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from sgl_like.errors import ConstraintTooComplex, EngineUnavailable, SglError
from sgl_like.runtime.constrain.compiler import GrammarCompiler
from sgl_like.runtime.engine.constraints import vocabulary_of
from sgl_like.runtime.sampling_params import SamplingParams
from sgl_like.runtime.server.engine.lifetime import die_with_parent
from sgl_like.runtime.server.engine.vetting import vet, warm_up
from sgl_like.runtime.server.engine.wire import decode_error, encode_error
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

QUICK_SECONDS = 0.5
"""A trial that takes longer gives way: others may begin beside it, and the processor goes to them first."""
QUICK, MOST, IDLE = 2, 6, 2
"""Trials of less than `QUICK_SECONDS` at a time, trials at all, and forks that wait for the next."""
CROWDED_SECONDS = 1.0
"""Of the processor, after which a trial ends early if all are slow and others wait."""
WAIT_SECONDS = 30.0
_TICK = 0.05
_WORN_KIB = 1024 * 1024
_NICE = 5


T = TypeVar("T")
_BUSY = EngineUnavailable("too many new constraints are being compiled; the request may be sent again")


class Begin(msgspec.Struct, frozen=True):
    """The first message.

    Args:
        model_path: folder of the tokenizer.
        vocab_size: of the model's logits.
        seconds: that a trial may take.
        memory: bytes that a trial may take.
    """

    model_path: str
    vocab_size: int
    seconds: float
    memory: int


class Check(msgspec.Struct, frozen=True):
    """Try the constraints of some parameters."""

    number: int
    params: SamplingParams


class Checked(msgspec.Struct, frozen=True):
    """What came of a `Check`: nothing if all is well. `final`: it would be the same another time."""

    number: int
    error: SglError | None = None
    final: bool = True


encoder = msgspec.msgpack.Encoder(enc_hook=encode_error)
checked_decoder = msgspec.msgpack.Decoder(Checked, dec_hook=decode_error)


class Helper:
    """A fork, which tries one constraint after the other. What it learns makes the next ones quicker.

    Args:
        pid: its process.
        sock: to it.
    """

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid, self.sock = pid, sock
        self.check: Check | None = None
        self.slow = False
        self._begun = 0.0
        self._cpu_before = 0.0

    def start(self, check: Check) -> None:
        """Have it try a constraint."""
        self.check, self.slow = check, False
        self._begun, self._cpu_before = time.monotonic(), self._cpu()
        send(self.sock, encoder.encode(check))

    @property
    def seconds(self) -> float:
        """Since it began with what it does."""
        return time.monotonic() - self._begun

    @property
    def cpu_seconds(self) -> float:
        """Of the processor, since then."""
        return self._cpu() - self._cpu_before

    def give_way(self) -> None:
        """From now on the processor goes to others first."""
        self.slow = True
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self.pid, 19)

    def end(self) -> None:
        """Kill it."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.sock.close()

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """Serves one connection.

    Args:
        sock: to the engine's process.
        begin: its first message.
    """

    def __init__(self, sock: socket.socket, begin: Begin) -> None:
        self._sock, self._begin = sock, begin
        self._selector = selectors.DefaultSelector()
        self._waiting: deque[tuple[float, Check]] = deque()
        self._helpers: dict[socket.socket, Helper] = {}
        self._compiler = _compiler(begin)

    def run(self) -> None:
        """Until the connection ends."""
        self._selector.register(self._sock, selectors.EVENT_READ)
        self._fork()
        try:
            while True:
                busy = self._waiting or any(helper.check for helper in self._helpers.values())
                for key, _ in self._selector.select(_TICK if busy else None):
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is self._sock:
                        self._waiting.append((time.monotonic(), receive(self._sock, Check)))
                    else:
                        self._finish(self._helpers[key.fileobj])
                self._watch()
                self._start_trials()
        except EOFError:
            for helper in self._helpers.values():
                helper.end()

    def _start_trials(self) -> None:
        while self._waiting:
            busy = [helper for helper in self._helpers.values() if helper.check is not None]
            if len(busy) >= MOST or sum(not helper.slow for helper in busy) >= QUICK:
                return
            since, check = self._waiting.popleft()
            if time.monotonic() - since > WAIT_SECONDS:
                self._answer(check, _BUSY, final=False)
                continue
            idle = next((helper for helper in self._helpers.values() if helper.check is None), None)
            (idle or self._fork()).start(check)

    def _fork(self) -> Helper:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._sock.close()
            for other in self._helpers:
                other.close()
            _help(self._compiler, theirs, self._begin.memory)
        theirs.close()
        helper = self._helpers[ours] = Helper(pid, ours)
        self._selector.register(ours, selectors.EVENT_READ)
        return helper

    def _finish(self, helper: Helper) -> None:
        check = helper.check
        try:
            checked = receive(helper.sock, Checked)
        except EOFError:
            self._end(helper)
            if check is not None:
                self._answer(check, ConstraintTooComplex("the constraint is too complex to be compiled"))
            return
        send(self._sock, encoder.encode(checked))
        helper.check = None
        others = sum(other.check is None for other in self._helpers.values())
        if helper.slow or others > IDLE:  # its priority cannot be raised again
            self._end(helper)

    def _watch(self) -> None:
        busy = [helper for helper in self._helpers.values() if helper.check is not None]
        for helper in busy:
            if helper.seconds > QUICK_SECONDS and not helper.slow:
                helper.give_way()
            if helper.seconds > self._begin.seconds:
                starved = helper.cpu_seconds < self._begin.seconds / 8
                limit = f"{self._begin.seconds:g} s"
                late = ConstraintTooComplex(f"the constraint takes more than {limit} to compile")
                self._stop(helper, _BUSY if starved else late, final=not starved)
        busy = [helper for helper in busy if helper.check is not None]
        if self._waiting and len(busy) >= MOST and all(helper.slow for helper in busy):
            longest = max(busy, key=lambda helper: helper.seconds)
            if longest.cpu_seconds > CROWDED_SECONDS:
                self._stop(longest, _BUSY, final=False)

    def _stop(self, helper: Helper, error: SglError, final: bool) -> None:
        assert helper.check is not None
        self._answer(helper.check, error, final)
        self._end(helper)

    def _end(self, helper: Helper) -> None:
        helper.check = None
        self._selector.unregister(helper.sock)
        del self._helpers[helper.sock]
        helper.end()

    def _answer(self, check: Check, error: SglError, final: bool = True) -> None:
        send(self._sock, encoder.encode(Checked(check.number, error, final)))


def send(sock: socket.socket, frame: bytes) -> None:
    """Send a frame, as `Frames` does."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(len(frame).to_bytes(4, "big") + frame)


def receive(sock: socket.socket, kind: type[T]) -> T:
    """The next message.

    Raises:
        EOFError: the other side is gone.
    """

    def exactly(size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                more = sock.recv(size - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    frame = exactly(int.from_bytes(exactly(4), "big"))
    return msgspec.msgpack.decode(frame, type=kind, dec_hook=decode_error)


def _compiler(begin: Begin) -> GrammarCompiler:
    tokenizer = Tokenizer(Path(begin.model_path), begin.vocab_size)
    compiler = GrammarCompiler(vocabulary_of(tokenizer, begin.vocab_size))
    warm_up(compiler)
    gc.collect()
    gc.freeze()  # forks do not copy it just to look at it
    return compiler


def _help(compiler: GrammarCompiler, sock: socket.socket, memory: int) -> NoReturn:
    """What a fork does."""
    try:
        _limit(memory)
        while True:
            check = receive(sock, Check)
            error: SglError | None = None
            try:
                vet(compiler, check.params)
            except (MemoryError, RecursionError):
                error = ConstraintTooComplex("the constraint is too complex: it takes too much memory")
            except SglError as refused:
                error = refused
            send(sock, encoder.encode(Checked(check.number, error)))
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _WORN_KIB:
                break
    finally:
        os._exit(0)


def _limit(memory: int) -> None:
    """A bound on the memory of this process, which is also the one to go if that of the machine runs out."""
    die_with_parent()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """The process."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.nice(_NICE)
    sock = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(EOFError):
        Worker(sock, receive(sock, Begin)).run()


if __name__ == "__main__":
    main()
