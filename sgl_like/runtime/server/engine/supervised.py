"""An engine in a process of its own that is started again whenever it dies or hangs.

    starting ──ready──> ready ──no pong──> unresponsive ──still none──> killed ──> starting
        ^                 │  <──a pong──────────┘                          ^
        └──died───────────┴──────── a step takes too long ─────────────────┘

Whoever has a request in flight when an engine dies or stops answering hears of it at once: the terminal output has an
`EngineUnavailable`. The front process, its connections and its port stay.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sgl_like.errors import ConfigError, EngineUnavailable, ModelLoadError, SglError
from sgl_like.runtime.protocol import GenerateRequest, OutputSink
from sgl_like.runtime.server.config import ServerConfig
from sgl_like.runtime.server.engine.client import EngineState
from sgl_like.runtime.server.engine.link import EngineProcess
from sgl_like.runtime.server.engine.wire import EngineInfo, Question, Start

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_STOP_SECONDS = 2.0
_SAVE_SECONDS = 60.0


class SupervisedEngine:
    """An `EngineClient`.

    Args:
        config: the server's options.

    Attributes:
        failed: done if the first engine can never start, as its model or an option cannot be used.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.state: EngineState = "starting"
        self.info: EngineInfo | None = None
        self.restarts = 0
        self.failed: asyncio.Future[SglError] = asyncio.get_running_loop().create_future()
        self.was_ready = asyncio.Event()
        self._config = config
        self._engine: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return 0 if self._engine is None else self._engine.in_flight

    def submit(self, request: GenerateRequest, receive: OutputSink) -> None:
        """See `EngineClient`."""
        self._ready_engine().submit(request, receive)

    def abort(self, rid: str) -> None:
        """See `EngineClient`."""
        if self._engine is not None:
            self._engine.abort(rid)

    async def ask(self, what: Question, **arguments: Any) -> Any:
        """See `EngineClient`."""
        return await self._ready_engine().ask(what, arguments)

    async def start(self) -> None:
        """See `EngineClient`."""
        if self._task is None:
            self._task = asyncio.create_task(self._supervise())

    async def cut_all(self, message: str = "the server is shutting down") -> None:
        """End all requests with what they have by now: finish reason "abort", no error. No new ones are taken."""
        self.state = "stopped"
        if self._engine is not None:
            await self._engine.cut_all(message, patience=1.0)

    async def close(self) -> None:
        """See `EngineClient`."""
        self.state = "stopped"
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.give_up_all(EngineUnavailable("the server is shutting down"))
            saves = self._config.engine.get("cache_dir") is not None
            await engine.stop(_SAVE_SECONDS if saves else _STOP_SECONDS)

    def kill_now(self) -> None:
        """End the process without waiting, for when this one ends at once."""
        if self._engine is not None:
            self._engine.kill_now()

    def _ready_engine(self) -> EngineProcess:
        """Raises EngineUnavailable: none is ready."""
        if self.state == "ready" and self._engine is not None:
            return self._engine
        reasons = {
            "starting": "the engine is starting",
            "unresponsive": "the engine does not answer",
            "stopped": "the server is shutting down",
        }
        raise EngineUnavailable(reasons.get(self.state, "the engine is not ready"))

    async def _supervise(self) -> None:
        delay = 0.0
        while self.state != "stopped":
            engine = self._engine = await EngineProcess.spawn(_start_message(self._config))
            try:
                info = await asyncio.wait_for(asyncio.shield(engine.ready), self._config.start_seconds)
            except (SglError, TimeoutError) as error:
                await engine.kill()
                if isinstance(error, ModelLoadError | ConfigError) and self.info is None:
                    self.failed.set_result(error)
                    return
                delay = min(2 * delay, _LONGEST_DELAY) or _FIRST_DELAY
                why = str(error) or f"not ready after {self._config.start_seconds:g} s"
                log.error("the engine did not start (%s); the next attempt is in %g s", why, delay)
                await asyncio.sleep(delay)
                continue
            delay = 0.0
            self._become("ready")
            self.info = info
            self.was_ready.set()
            why = await self._watch(engine)
            self._become("starting")
            self.restarts += 1
            log.error("%s; the next one is being started", why)
            await engine.kill()

    async def _watch(self, engine: EngineProcess) -> str:
        """Until the engine has died or is given up; the reason."""
        config, loop = self._config, asyncio.get_running_loop()
        silent, last = 0.0, loop.time()
        while True:
            try:
                await asyncio.wait_for(engine.gone.wait(), config.heartbeat_seconds)
                return "the engine has died"
            except TimeoutError:
                pass
            now = loop.time()
            # if this loop itself came late, that is no fault of the engine, whose pong may lie here unread
            passed, last = min(now - last, 2 * config.heartbeat_seconds), now
            silent = silent + passed if engine.waiting_pongs else 0.0
            if engine.busy_seconds > config.step_seconds:
                engine.give_up_all(EngineUnavailable("the engine hung; the request may be sent again"))
                return f"a step of the engine has taken more than {config.step_seconds:g} s"
            if silent >= config.kill_seconds:
                return f"the engine has not answered for {config.kill_seconds:g} s"
            if silent >= config.unresponsive_seconds:
                if self.state == "ready":
                    log.error("the engine does not answer")
                    self._become("unresponsive")
                engine.give_up_all(
                    EngineUnavailable("the engine does not answer; the request may be sent again")
                )
            elif self.state == "unresponsive":
                log.warning("the engine answers again")
                self._become("ready")
            if silent == 0.0:
                engine.ping()

    def _become(self, state: EngineState) -> None:
        if self.state != "stopped":
            self.state = state


def _start_message(config: ServerConfig) -> Start:
    model = None if config.model is None else str(config.model)
    options = {name: str(v) if hasattr(v, "__fspath__") else v for name, v in config.engine.items()}
    stub = config.stub if config.engine_kind == "stub" else None
    return Start(model, options, stub, config.limits.compile_seconds, config.log_level, config.log_format)
