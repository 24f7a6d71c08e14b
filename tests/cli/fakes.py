"""A backend without a model: what it answers depends on the text alone, as with greedy decoding."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sgl_like.cli.extract import Totals
from sgl_like.errors import EngineError, RequestError
from sgl_like.frontend.backend.base import Handle, Sink
from sgl_like.runtime.protocol import FinishReason, Output, Usage
from tests.support.instant_backend import InstantBackend

BEGIN, END = "\x02", "\x03"  # around a message


class EchoBackend(InstantBackend):
    """Echoes the last message as JSON; one with ``fail`` in it is an error.

    Args:
        errors: what the engine says of certain texts.
    """

    supported_params = frozenset({"max_new_tokens", "temperature", "json_schema", "property_order"})

    def __init__(self, errors: Mapping[str, EngineError] | None = None) -> None:
        super().__init__()
        self._errors = errors or {}

    def __enter__(self) -> EchoBackend:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def role_affixes(self, messages: Sequence[Mapping[str, Any]], role: str) -> tuple[str, str]:
        return BEGIN, END

    def submit(
        self, prompt_ids: Sequence[int], params: Mapping[str, Any], sink: Sink, stream: bool
    ) -> Handle:
        text = "".join(map(chr, prompt_ids)).split(END)[-2].removeprefix(BEGIN)
        if text in self._errors:
            sink(Output("rid", finish=FinishReason("error"), error=self._errors[text]))
        elif "fail" in text:
            raise RequestError(f"cannot do {text!r}")
        else:
            usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=6, forced_tokens=3)
            sink(Output("rid", json.dumps({"echo": text}), (1, 2), FinishReason("stop"), usage=usage))
        return super().submit(prompt_ids, params, lambda output: None, stream)


def stopping_totals(after: int, problem: BaseException) -> type[Totals]:
    """Totals that raise `problem` when so many rows were counted."""

    class Stopping(Totals):
        def add(self, answer: Any) -> None:
            if self.rows == after:
                raise problem
            super().add(answer)

    return Stopping
