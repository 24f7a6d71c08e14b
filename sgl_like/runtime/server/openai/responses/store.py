"""Responses that are kept in memory, so that a later one can go on from them, so many bytes for each tenant."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec


class Stored(NamedTuple):
    """A response that is over.

    Args:
        response: as the client got it.
        input: the items of its own request.
        before: the items of the conversation that it went on from.
        bytes: what it counts for; items that several responses share count for each of them.
    """

    response: dict[str, Any]
    input: tuple[dict[str, Any], ...]
    before: tuple[dict[str, Any], ...]
    bytes: int

    @property
    def conversation(self) -> tuple[dict[str, Any], ...]:
        """Everything up to this response, and itself."""
        return (*self.before, *self.input, *self.response["output"])


@dataclass(frozen=True, slots=True)
class Running:
    """A response that is being made.

    Args:
        response: its object, which changes with every piece of the answer.
        cancel: ends it early.
    """

    response: dict[str, Any]
    cancel: Callable[[], None]


class ResponseStore:
    """The most recently used responses; the others make room for them.

    Args:
        bytes: for each tenant.

    Attributes:
        running: what is being made, by tenant and id.
    """

    def __init__(self, bytes: int) -> None:
        self.running: dict[tuple[str, str], Running] = {}
        self._bytes = bytes
        self._kept: dict[str, OrderedDict[str, Stored]] = {}
        self._held: dict[str, int] = {}

    def put(
        self,
        tenant: str,
        response: dict[str, Any],
        input: tuple[dict[str, Any], ...],
        before: tuple[dict[str, Any], ...],
    ) -> None:
        """Keep a response. One that is larger than all the room is not kept."""
        size = len(msgspec.json.encode((response, input, before)))
        if size > self._bytes:
            return
        kept = self._kept.setdefault(tenant, OrderedDict())
        kept[response["id"]] = Stored(response, input, before, size)
        self._held[tenant] = self._held.get(tenant, 0) + size
        while self._held[tenant] > self._bytes:
            _, oldest = kept.popitem(last=False)
            self._held[tenant] -= oldest.bytes

    def get(self, tenant: str, id: str) -> Stored | None:
        """A tenant's response, which counts as used now."""
        kept = self._kept.get(tenant, OrderedDict())
        if id in kept:
            kept.move_to_end(id)
        return kept.get(id)

    def delete(self, tenant: str, id: str) -> bool:
        """Whether there was such a response."""
        found = self._kept.get(tenant, OrderedDict()).pop(id, None)
        if found is None:
            return False
        self._held[tenant] -= found.bytes
        return True

    def held(self, tenant: str) -> int:
        """Bytes that a tenant's responses count for."""
        return self._held.get(tenant, 0)
