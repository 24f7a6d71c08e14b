"""Where in a user's code something happens: the nearest frame that is not of this package."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import FrameType
from typing import NamedTuple

__all__ = ["Place", "user_line"]

_OWN = str(Path(__file__).parents[2])
_CONTEXTS = contextlib.contextmanager.__code__.co_filename  # between ``with s.user():`` and the state


class Place(NamedTuple):
    """A line of a file."""

    file: str
    line: int


def user_line() -> Place | None:
    """The line of the user's code that is being run."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_OWN) and file != _CONTEXTS:
            return Place(file, frame.f_lineno)
        frame = frame.f_back
    return None
