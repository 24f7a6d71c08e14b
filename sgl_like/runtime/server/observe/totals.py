"""What is counted in the front process. Plain numbers: names, labels and types come in when they are read."""

from __future__ import annotations

from collections import Counter

from sgl_like.runtime.server.observe.histogram import (
    COUNTS,
    FIRST_TOKEN_SECONDS,
    OUTPUTS,
    SECONDS,
    TOKEN_SECONDS,
    Histogram,
)

Streaming = bool


class Totals:
    """Counts since the start. `requests` are sequences: a call with two prompts and ``n=3`` has six.

    ``requests == sum(ended) + (those in flight)``, where `ended` has ``"rejected"`` for what the engine never ran.
    """

    def __init__(self) -> None:
        self.requests: Counter[Streaming] = Counter({False: 0, True: 0})
        self.ended: Counter[str] = Counter(dict.fromkeys(("stop", "length", "abort", "error", "rejected"), 0))
        self.aborted: Counter[str] = Counter()
        """By cause; the sum is that of ``ended["abort"]``."""
        self.constrained = 0
        self.prompt_tokens: Counter[Streaming] = Counter({False: 0, True: 0})
        self.generation_tokens: Counter[Streaming] = Counter({False: 0, True: 0})
        self.cached_tokens = 0
        self.forced_tokens = 0
        self.tenant_requests: Counter[str] = Counter()
        self.tenant_tokens: Counter[tuple[str, str]] = Counter()
        self.http_requests: Counter[tuple[str, str]] = Counter()
        """By route and method."""
        self.http_responses: Counter[tuple[str, str, int]] = Counter()
        self.http_active: Counter[tuple[str, str]] = Counter()
        self.first_token = {False: Histogram(FIRST_TOKEN_SECONDS), True: Histogram(FIRST_TOKEN_SECONDS)}
        self.inter_token = Histogram(TOKEN_SECONDS)
        self.per_output_token = Histogram(TOKEN_SECONDS)
        self.e2e = {False: Histogram(SECONDS), True: Histogram(SECONDS)}
        self.queue = Histogram(SECONDS)
        self.inference = Histogram(SECONDS)
        self.prefill = Histogram(SECONDS)
        self.decode = Histogram(SECONDS)
        self.prompt_lengths = Histogram(COUNTS)
        self.generation_lengths = Histogram(COUNTS)
        self.max_tokens = Histogram(COUNTS)
        self.outputs_asked = Histogram(OUTPUTS)
