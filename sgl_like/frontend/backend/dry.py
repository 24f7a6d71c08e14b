"""A backend on which nothing runs: it tokenises and knows a chat template, for looking at programs without a model.

Where there is a real backend it asks that one, so that prompts are exactly what it would be sent. Without one it
reads the tokenizer of the embedded model, when that is first needed: no network, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sgl_like.errors import EngineError
from sgl_like.frontend.backend.base import Backend, Segment, ToolForm
from sgl_like.frontend.bodies.executor import Executor
from sgl_like.runtime.logprobs import LOGPROB_OPTIONS
from sgl_like.runtime.sampling_params import SamplingParams

if TYPE_CHECKING:
    from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

__all__ = ["DryBackend"]

_ALL = frozenset(field.name for field in fields(SamplingParams)) | LOGPROB_OPTIONS
_executor = Executor("sgl-DryBackend")
_EMBEDDED = Path(__file__).parents[2] / "assets" / "tiny"


class DryBackend(Backend):
    """Stands for `real`, or for the embedded model where that is ``None``, and refuses to run anything.

    Args:
        real: a backend.
        template: a chat template instead of its own: a registered name, Jinja text, or the path of a file with that.

    Raises:
        ConfigError: `template` is none of these.
    """

    def __init__(self, real: Backend | None = None, template: str | Path | None = None) -> None:
        super().__init__()
        self.executor = _executor  # one thread for all of them: each is used for a moment only
        self._real = real
        self._template = None if template is None else _tokenizer(template).chat_template

    @property
    def original(self) -> Backend:
        """The backend it stands for, or itself."""
        return self._real or self

    @property
    def model_name(self) -> str:
        """Of the backend it stands for."""
        return str(_EMBEDDED) if self._real is None else self._real.model_name

    @property
    def supported_params(self) -> frozenset[str]:
        """Of the backend it stands for; all there are, if it stands for none."""
        return _ALL if self._real is None else self._real.supported_params

    @property
    def ids_are_tokens(self) -> bool:
        """As for the backend it stands for."""
        return self._real is None or self._real.ids_are_tokens

    @property
    def supports_images(self) -> bool:
        """Whatever the model can see, a program with images can be looked at."""
        return True

    def encode(self, segments: Sequence[Segment], *, start: bool = False) -> list[int]:
        """Token ids of the joined text; see `Backend.encode`."""
        if self._real is not None:
            return self._real.encode(segments, start=start)
        ids = self._tokenizer.encode_segments([(segment.text, segment.trusted) for segment in segments])
        first = self._tokenizer.start_ids if start else []
        return ids if ids[: len(first)] == first else [*first, *ids]

    def token_bytes(self) -> Sequence[bytes | None] | None:
        """Of the backend it stands for; without one it is not known what vocabulary a run will have."""
        return None if self._real is None else self._real.token_bytes()

    @property
    def tool_form(self) -> ToolForm | None:
        """Of the backend it stands for."""
        return (self._real or self._tokenizer).tool_form

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        """Markup around the next message; see `Backend.role_affixes`."""
        return (self._template or self._real or self._tokenizer).role_affixes(messages, role)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return _tokenizer(None)

    def submit(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses.

        Raises:
            EngineError: always.
        """
        raise EngineError("nothing is generated while a program is only looked at")

    score = submit

    def flush_cache(self) -> bool:
        """There is none."""
        return True

    def shutdown(self) -> None:
        """Nothing runs."""


def _tokenizer(template: str | Path | None) -> Tokenizer:
    """That of the embedded model, with a chat template of choice."""
    from sgl_like.runtime.tokenizer.tokenizer import Tokenizer

    return Tokenizer(_EMBEDDED, chat_template=template)
