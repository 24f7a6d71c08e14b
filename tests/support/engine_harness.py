"""An engine core without its thread: requests are pushed in and steps are taken by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sgl_like.runtime.cache.host_tier import HostTier
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.engine.core import EngineCore
from sgl_like.runtime.engine.intake import Intake
from sgl_like.runtime.engine.memory import KVMemory
from sgl_like.runtime.engine.output import OutputProcessor
from sgl_like.runtime.engine.runner import ModelRunner
from sgl_like.runtime.engine.scheduler import Scheduler
from sgl_like.runtime.engine.speculation import SIZES, Speculation
from sgl_like.runtime.logprobs import PlaceLogprobs
from sgl_like.runtime.models.load import Model, load_model
from sgl_like.runtime.protocol import FinishReason, GenerateRequest, Output, Timing, Usage
from sgl_like.runtime.tokenizer.tokenizer import Tokenizer
from tests.support.devices import DEVICE


@dataclass
class Result:
    """All events of one request, joined."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    error: Exception | None = None
    usage: Usage = field(default_factory=Usage)
    choice_logprobs: tuple[tuple[float, ...], ...] | None = None
    prompt_logprobs: list[PlaceLogprobs] = field(default_factory=list)
    output_logprobs: list[PlaceLogprobs] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    embedding: tuple[float, ...] | None = None
    timing: Timing | None = None
    events: int = 0


@cache
def load(folder: Path) -> tuple[Model, Tokenizer]:
    """A folder's model and tokenizer, read once per test process."""
    model = load_model(folder, dtype="float32", device=DEVICE)
    return model, Tokenizer(folder, model.config.vocab_size)


class Harness:
    """A model folder's engine core, stepped by hand; invariants are checked after every step."""

    def __init__(
        self,
        folder: Path,
        slots: int = 1000,
        running: int = 8,
        budget: int = 64,
        reuse: bool = True,
        page_size: int = 1,
        policy: str = "lpm",
        host: Path | None = None,
        speculation: int = 0,
        sizes: Sequence[int] = SIZES,
        quota: float | None = None,
    ) -> None:
        model, self.tokenizer = load(folder)
        shape = model.config
        slots -= slots % page_size
        pool = KVPool(shape.layers, slots, shape.kv_heads, shape.head_dim, model.dtype, DEVICE)
        pool.keys.fill_(float("nan"))  # a slot that is read before it is written shows
        pool.values.fill_(float("nan"))
        tier = None if host is None else HostTier(host, pool, "model", 10**9, block=16)
        self.memory = KVMemory(slots, reuse, page_size, tier, quota)
        self.scheduler = Scheduler(self.memory, running, budget, policy)
        output = OutputProcessor(self.tokenizer.eos_token_ids)
        self.core = EngineCore(
            ModelRunner(model, pool),
            self.memory,
            self.scheduler,
            output,
            Speculation(self.memory, speculation, sizes) if speculation else None,
            clock=lambda: self.now,
        )
        self.intake = Intake(self.tokenizer, shape.vocab_size, shape.max_position, self.memory.size)
        self.results: dict[str, Result] = {}
        self.now = 0.0  # seconds, for deadlines

    def add(self, request: GenerateRequest) -> None:
        """Check a request and hand it to the core."""
        for admitted in self.intake.admit_parts(request, self._receive):
            if request.deadline is not None:
                admitted.deadline = self.now + request.deadline
            self.core.add(admitted)

    def step(self) -> None:
        """One step, then all invariants."""
        self.core.step()
        self.core.check_invariants()

    def run(
        self, requests: Sequence[GenerateRequest], arrive: Callable[[], bool] = lambda: True
    ) -> dict[str, Result]:
        """Run requests to their end; before each step, the next ones come in as long as `arrive()` says so."""
        waiting = list(requests)
        for _ in range(100_000):
            while waiting and arrive():
                self.add(waiting.pop(0))
            if not waiting and not self.core.has_work:
                return self.results
            self.step()
        raise AssertionError("the engine does not finish")

    def _receive(self, output: Output) -> None:
        result = self.results.setdefault(output.rid, Result())
        assert result.finish is None, "an event after the terminal one"
        result.text += output.text
        result.forced += [len(result.token_ids) + place for place in output.forced]
        result.token_ids += output.token_ids
        result.finish, result.error, result.usage = output.finish, output.error, output.usage
        result.choice_logprobs = output.choice_logprobs
        result.prompt_logprobs += output.prompt_logprobs
        result.output_logprobs += output.output_logprobs
        result.embedding, result.timing = output.embedding, output.timing
        result.events += 1
