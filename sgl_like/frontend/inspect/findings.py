"""What `lint` finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a program that its author should know.

    Args:
        rule: which rule found it, e.g. ``"duplicate-name"``.
        level: ``"error"``: a run will fail, or a value be wrong. ``"warning"``: it is most likely not meant.
            ``"info"``: worth a look.
        message: what, and what to do about it.
        line: of the file, if known.
        file: if known.
    """

    rule: str
    level: Level
    message: str
    line: int | None = None
    file: str | None = None

    def __str__(self) -> str:
        place = f"{Path(self.file).name}:{self.line}: " if self.file is not None else ""
        return f"{place}{self.level}: {self.message} [{self.rule}]"
