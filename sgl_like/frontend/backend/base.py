"""The contract between programs and whatever runs a model: our engine, an HTTP endpoint, a fake in a test.

A backend turns text to tokens, knows the chat template, and runs requests that report through a callback. It
is never asked to wait: `submit` and `score` return at once. It does not know programs, variables or roles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sgl_like.errors import RequestError
from sgl_like.frontend.bodies.executor import Executor
from sgl_like.runtime.protocol import Output
from sgl_like.runtime.tokenizer.tool_form import PLAIN as PLAIN_TOOL_FORM
from sgl_like.runtime.tokenizer.tool_form import ToolForm, call_message, result_message

__all__ = [
    "PLAIN_TOOL_FORM",
    "Backend",
    "CacheStats",
    "Handle",
    "Picture",
    "Segment",
    "Sink",
    "ToolForm",
    "call_message",
    "result_message",
]

Sink = Callable[[Output], None]
"""Gets every event of a request, on the backend's own thread; it is quick and does not raise."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as a file: its bytes, and what kind of file it is, e.g. ``"image/png"``."""

    data: bytes
    mime: str

    def __repr__(self) -> str:
        return f"Picture({self.mime}, {len(self.data)} bytes)"

    @property
    def data_url(self) -> str:
        """As a ``data:`` URL (RFC 2397), as OpenAI's ``image_url`` takes it."""
        return f"data:{self.mime};base64,{b64encode(self.data).decode()}"


class Segment(NamedTuple):
    """A piece of prompt text.

    `trusted` text (what a chat template adds, raw prompt text outside any role) may contain special tokens; in
    other text (the content of a role, model output) the same characters are just characters. With a `picture` the
    segment stands for that, and `text` only for its place; only backends with `supports_images` ever get one.
    """

    text: str
    trusted: bool
    picture: Picture | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """A prefix cache since it began, in tokens.

    Args:
        hits: of prompts, found in the cache.
        misses: of prompts, not found.
        evictions: that had to make room.
        cached: that are there now, and could be evicted.
        pinned: that are there now, and stay.
        capacity: that there is room for, running requests included.
        reloaded: that came back from files (``cache_dir``).
    """

    hits: int
    misses: int
    evictions: int
    cached: int
    pinned: int
    capacity: int
    reloaded: int = 0

    @classmethod
    def of(cls, stats: Mapping[str, Any]) -> CacheStats:
        """From an engine's counts."""
        return cls(
            hits=stats["cached_tokens"],
            misses=stats["prompt_tokens"] - stats["cached_tokens"],
            evictions=stats["kv_evicted"],
            cached=stats["kv_evictable"],
            pinned=stats["kv_pinned"],
            capacity=stats["kv_slots"],
            reloaded=stats["kv_loaded"],
        )

    @property
    def hit_rate(self) -> float:
        """Share of prompts' tokens that were found."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Handle(Protocol):
    """A request in flight."""

    def cancel(self) -> None:
        """Stop it, from any thread, any number of times; its terminal event may or may not still come."""


class Backend(ABC):
    """What a program state talks to. Subclasses call ``super().__init__()``."""

    def __init__(self) -> None:
        self.executor = Executor(f"sgl-{type(self).__name__}")

    @property
    @abstractmethod
    def model_name(self) -> str:
        """Name or path of the model, for people."""

    @property
    def fingerprint(self) -> str:
        """A name for all that answers depend on besides the call, for caches of answers."""
        return f"{type(self).__qualname__} {self.model_name}"

    @property
    @abstractmethod
    def supported_params(self) -> frozenset[str]:
        """Sampling parameters that `submit` understands; others set by a program are an error before the call."""

    @property
    def supports_images(self) -> bool:
        """Whether prompts may have images; with others an image is an error before the call."""
        return False

    @property
    def ids_are_tokens(self) -> bool:
        """Whether ids are tokens of the model. Other backends use ids of their own, that stand for text, and the
        rows of ``Output.choice_logprobs`` are as long as the model's own tokens make them.
        """
        return True

    def scores(self, prompt_ids: Sequence[int]) -> bool:
        """Whether `score` gives log-probabilities after this prompt. Where it does not, the model itself takes one
        of the choices: it is the text of the terminal event.
        """
        return True

    def opening(self, prompt_ids: Sequence[int]) -> int | None:
        """Where a prompt's open message begins, if the backend cannot continue one of which something is written;
        ``None`` if it can.
        """
        return None

    @abstractmethod
    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """Token ids of the joined text of `segments`; of the first tokens of a prompt if `start`, which then
        begin with the model's beginning-of-sequence token, if it wants one and the text does not bring it.

        Ordinary text is merged across segment borders before it is tokenised, so where no special token comes
        in between, the ids are those of the whole text. Only special tokens that lie within one trusted segment
        become special tokens.
        """

    def token_pieces(self, ids: Sequence[int]) -> list[bytes | str] | None:
        """What tokens stand for: bytes (not always whole characters), or the name of a special token. None where the
        backend does not know; its tokens are then shown as text alone.
        """
        return None

    def token_bytes(self) -> Sequence[bytes | None] | None:
        """The bytes of each token of the vocabulary (``None`` for special ones), or ``None`` if they are not known."""
        return None

    @property
    def tool_form(self) -> ToolForm | None:
        """How the model's chat template writes calls of functions; ``None`` where it does not, or it is not known."""
        return None

    @abstractmethod
    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Text around the content of the next message, of `role`, after the completed `messages`.

        Raises:
            ChatTemplateError: there is no template, or it does not know the role.
        """

    @abstractmethod
    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        """Continue `prompt_ids`. `sink` gets exactly one terminal event, and earlier ones if `stream`.

        Raises:
            RequestError: the parameters or the prompt cannot be run; the sink is not called then.
        """

    @abstractmethod
    def score(self, prompt_ids: Sequence[int], choices: Sequence[Sequence[int]], sink: Sink) -> Handle:
        """Log-probabilities of the tokens of each of `choices` (none empty), as they would follow `prompt_ids`: as
        ``Output.choice_logprobs`` of the terminal event, which is the only one.

        Raises:
            RequestError: as for `submit`.
        """

    def cache_prefix(self, prefix: str) -> None:
        """Have the backend compute a prefix of prompts to come. Does nothing where the cache is not ours to fill."""
        return

    def cache_stats(self) -> CacheStats:
        """What the prefix cache did so far.

        Raises:
            RequestError: the backend has none, or does not tell.
        """
        raise RequestError(f"{type(self).__name__} says nothing about a prefix cache")

    def get_server_info(self) -> dict[str, Any]:
        """What there is to know about the model and what runs it; at least ``"model_path"``."""
        return {"model_path": self.model_name}

    def hold_prefix(self, prefix_ids: Sequence[int]) -> Callable[[], None] | None:
        """Compute a prefix of prompts to come, and keep it cached until what is returned is called. Waits until it is
        computed. ``None``: this backend keeps nothing.

        Raises:
            RequestError: it is no prompt, or too long to be kept.
        """
        return None

    def prepare(self, params: Mapping[str, Any]) -> Future[None] | None:
        """Compile, in the background, what requests with these parameters are held to. ``None``: there is nothing
        to be done.

        Raises:
            SamplingParamsError: as from `submit`. What is wrong with the constraint itself is in the future.
        """
        return None

    @abstractmethod
    def flush_cache(self) -> bool:
        """Forget every cached prefix that is not in use; whether everything was forgotten."""

    @abstractmethod
    def shutdown(self) -> None:
        """Stop; requests in flight get a terminal error. May be called twice."""
