"""KV slots by number: a fixed count of them, handed out in whole pages.

A page is `page_size` neighbouring slots, so page 3 of size 16 is slots 48 .. 63. Slot numbers travel in arrays that
cover whole pages in order; only who computes knows that the last page may not be full yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Slots = NDArray[np.int32]
NO_SLOTS: Slots = np.empty(0, dtype=np.int32)


class SlotAllocator:
    """Hands out slots. Last freed, first reused, so a small working set stays small.

    Args:
        size: number of slots; what does not fill a page is left out.
        page_size: slots that are handed out together.
    """

    def __init__(self, size: int, page_size: int = 1) -> None:
        pages = size // page_size
        self.size = pages * page_size
        self.page_size = page_size
        self._free = np.arange(pages - 1, -1, -1, dtype=np.int32)  # page numbers
        self._count = pages
        self._within = np.arange(page_size, dtype=np.int32)

    @property
    def free_count(self) -> int:
        """Slots that nobody has."""
        return self._count * self.page_size

    def allocate(self, count: int) -> Slots | None:
        """`count` slots (whole pages), or ``None`` if there are not so many."""
        assert count % self.page_size == 0, "slots go in whole pages"
        pages = count // self.page_size
        if pages > self._count:
            return None
        self._count -= pages
        return self._slots(self._free[self._count : self._count + pages][::-1])

    def release(self, slots: Slots) -> None:
        """Take slots back, whole pages in order."""
        assert len(slots) % self.page_size == 0, "slots come back in whole pages"
        pages = slots[:: self.page_size] // self.page_size if self.page_size > 1 else slots
        end = self._count + len(pages)
        assert end <= len(self._free), "more slots freed than exist"
        self._free[self._count : end] = pages[::-1]
        self._count = end

    def free_slots(self) -> Slots:
        """The free slot numbers (for invariant checks)."""
        return self._slots(self._free[: self._count])

    def _slots(self, pages: NDArray[np.int32]) -> Slots:
        if self.page_size == 1:
            return pages.copy()
        return (pages[:, None] * self.page_size + self._within).reshape(-1)
