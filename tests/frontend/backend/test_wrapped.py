"""A wrapper passes on all that a backend can be asked."""

from __future__ import annotations

from sgl_like.frontend.backend.base import Backend
from sgl_like.frontend.backend.wrapped import Wrapped


def test_nothing_is_left_to_the_base_class() -> None:
    names = {name for name in vars(Backend) if not name.startswith("_")}
    assert names <= set(vars(Wrapped)), "a default of Backend would hide what the backend inside does"
