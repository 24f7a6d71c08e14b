"""What tests do differently where engines run on Triton's kernels in Triton's interpreter: less, as a step takes 50 ms.

`tests/kernels/triton/test_triton_engine.py` has the command for all of the engine's tests there. Every test runs, but
property tests try fewer examples, and what is tried at every place is tried at some.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

INTERPRETED = os.environ.get("SGL_LIKE_KERNELS") == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
PART = 8
"""One of so many examples is tried."""


def fewer(count: int, least: int = 2) -> int:
    """How many of so many examples, requests or steps a test takes."""
    return max(count // PART, min(least, count)) if INTERPRETED else count


def some(cases: Sequence[T], part: int = PART) -> Sequence[T]:
    """One of so many cases, spread evenly, the first among them."""
    return cases[::part] if INTERPRETED else cases


def only_cpu(reason: str) -> pytest.MarkDecorator:
    """Marks a test that is about the kernels for CPUs."""
    return pytest.mark.skipif(INTERPRETED, reason=reason)


class _Kept:
    def restore(self) -> None:
        """Nothing: the language stays as the interpreter needs it."""


def patch_language_once() -> None:
    """Let the interpreter put its own functions into Triton's language once, not again for each call of a kernel.

    It takes 2 ms each time, half of an engine's step.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    patch, done = interpreter._patch_lang, set[frozenset[int]]()

    def once(function: Any) -> _Kept:
        modules = frozenset(
            id(each) for each in function.__globals__.values() if each is tl or each is tl.core
        )
        if modules not in done:
            done.add(modules)
            patch(function)
        return _Kept()

    interpreter._patch_lang = once
