"""A prefix cache as a plain list of sequences: slow, obvious, and the reference for the radix tree."""

from __future__ import annotations


class NaiveCache:
    """Remembers every cached prefix by its tokens; `used` and `locks` are kept per cached token position."""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, ...], int] = {}  # prefix -> slot of its last token

    def match(self, tokens: tuple[int, ...]) -> list[int]:
        """Slots of the longest cached prefix."""
        found: list[int] = []
        for end in range(1, len(tokens) + 1):
            slot = self.slots.get(tokens[:end])
            if slot is None:
                break
            found.append(slot)
        return found

    def insert(self, tokens: tuple[int, ...], slots: list[int]) -> list[int]:
        """Add a sequence; returns the slots that were not needed."""
        spare = []
        for end in range(1, len(tokens) + 1):
            known = self.slots.get(tokens[:end])
            if known is None:
                self.slots[tokens[:end]] = slots[end - 1]
            elif known != slots[end - 1]:
                spare.append(slots[end - 1])
        return spare

    def forget(self, gone: set[int]) -> None:
        """Drop all prefixes that end in one of these slots."""
        self.slots = {prefix: slot for prefix, slot in self.slots.items() if slot not in gone}
