"""A batch on disk: a line for every row that has ended, so that another run goes on where this one stopped.

    x.jsonl.meta    program, its source, bound arguments, sampling parameters, model: have to be the same
    x.jsonl         {"row": 0, "digest": "5f3a...", "error": null, "text": ..., "variables": ...}
                    {"row": 2, "digest": "09bc...", "error": "... out of memory"}     run again, as is row 1
                    {"row": 3, "digest": "77e1...", "error": null, "text": ...}

Lines are in the order in which rows end. Of a row's lines the last one counts. In memory there is one number per row.
"""

from __future__ import annotations

import inspect
import json
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from sgl_like.errors import DataError
from sgl_like.frontend.batches.journal import Journal
from sgl_like.frontend.batches.plain import NotPlainError, digest
from sgl_like.frontend.batches.restored import restore, state_data
from sgl_like.frontend.calls import Call

if TYPE_CHECKING:
    from sgl_like.frontend.state import ProgramState

__all__ = ["Checkpoint", "fingerprint"]

_REMEDY = "use another checkpoint, or delete it with its .meta"


class Checkpoint:
    """The file of one batch, open for appending.

    Args:
        path: of the JSONL file.
        meta: what its rows depend on, see `fingerprint`.

    Raises:
        DataError: it cannot be written, or is not the checkpoint of a batch with this `meta`.
    """

    def __init__(self, path: Path, meta: Mapping[str, Any]) -> None:
        self._starts = array("q")  # where each row's line starts; -1 if it has none to be kept
        self._journal = Journal(path, meta, kind="checkpoint of run_batch", remedy=_REMEDY)
        try:
            for number, (start, line) in enumerate(self._journal.lines()):
                self._note(number, start, line)
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()

    def mark(self, number: int, call: Call) -> str:
        """What the row is known by. To be asked before the row is run, which may change its arguments.

        Raises:
            DataError: its arguments are no plain data.
        """
        try:
            return digest(call.given)
        except NotPlainError as error:
            raise DataError(
                f"row {number}: {error}, so a checkpoint cannot tell it from another; give texts, numbers, lists, dicts"
                " or dataclasses, and make the object in the program"
            ) from None

    def restore(self, number: int, mark: str, state: ProgramState) -> bool:
        """Make `state`, which is fresh, that of a row that has ended in an earlier run; false if it has to be run.

        Raises:
            DataError: it was another row there.
        """
        if number >= len(self._starts) or self._starts[number] < 0:
            return False
        record = json.loads(self._journal.line_at(self._starts[number]))
        if record["digest"] != mark:
            raise DataError(
                f"row {number} is another one than when {self._journal.path} was written; {_REMEDY}"
            )
        try:
            restore(state, record)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._journal.path}: the line of row {number} is damaged; {_REMEDY}"
            ) from error
        return True

    def record(self, number: int, mark: str, state: ProgramState) -> None:
        """Write the line of a row that has ended.

        Raises:
            DataError: it cannot be written.
        """
        line: dict[str, Any] = {"row": number, "digest": mark, "error": None}
        error = state._interpreter.error
        self._journal.append(
            {**line, "error": str(error)} if error is not None else {**line, **state_data(state)}
        )

    def _note(self, number: int, start: int, line: bytes) -> None:
        try:
            record = json.loads(line)
            row, failed = record["row"], record["error"] is not None
            missing = row + 1 - len(self._starts)
            self._starts.extend([-1] * missing)
            self._starts[row] = -1 if failed else start
        except (ValueError, KeyError, TypeError, IndexError):
            raise self._journal.damaged(number) from None


def fingerprint(
    func: Callable[..., Any], bound: Mapping[str, Any], sampling: Mapping[str, Any], model: str
) -> dict[str, Any]:
    """What the results of a program depend on besides its rows, as far as it can be told.

    Of the program: its code (not its comments), its defaults, and the texts outside that it names in capitals. What
    else it reads is not in it, such as files, or functions that it calls.
    """
    code = getattr(func, "__code__", None)
    return {
        "checkpoint": 1,
        "program": func.__qualname__,
        "code": digest(_compiled(code)) if code is not None else None,
        "defaults": _plain([getattr(func, "__defaults__", None), getattr(func, "__kwdefaults__", None)]),
        "constants": _constants(func),
        "bound": {name: _plain(value) for name, value in bound.items()},
        "sampling": {name: _plain(value) for name, value in sampling.items()},
        "model": model,
    }


def _compiled(code: CodeType) -> list[Any]:
    """Plain data for what Python made of a function; the same in every process."""
    consts = [_compiled(each) if isinstance(each, CodeType) else _plain(each) for each in code.co_consts]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, consts]


def _constants(func: Callable[..., Any]) -> dict[str, str]:
    """Prompts, most of all. Names in small letters may be of things that change, such as where to log."""
    try:
        found = inspect.getclosurevars(func)
    except (TypeError, ValueError):
        return {}
    texts = {
        name: value for name, value in {**found.globals, **found.nonlocals}.items() if isinstance(value, str)
    }
    return {name: digest(value) for name, value in sorted(texts.items()) if name.isupper()}


def _plain(value: Any) -> Any:
    """A JSON value that tells `value` from others; its type alone if it is no plain data."""
    try:
        return value if isinstance(value, (str, int, float, bool, type(None))) else digest(value)
    except NotPlainError:
        return type(value).__qualname__
