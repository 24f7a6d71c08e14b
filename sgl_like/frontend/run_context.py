"""What all states of one run share: its backend, its defaults, its hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.bodies.hooks import Hooks

__all__ = ["RunContext"]


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all states of one run share."""

    backend: Backend
    program: str
    defaults: Mapping[str, Any]  # sampling parameters of the run
    stream: bool  # whether text is wanted as it arrives
    hooks: Hooks = field(default_factory=Hooks)

    def tell(self, event: str, **what: Any) -> None:
        """Tell the run's hooks of something; `what` are fields of `Event`."""
        if self.hooks.heard(event):
            self.hooks.tell(event, **{"program": self.program, "model": self.backend.model_name, **what})
