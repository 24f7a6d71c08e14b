from __future__ import annotations

from typing import Any

import pytest

from sgl_like.errors import ConfigError
from sgl_like.runtime.server.limits import Limits


@pytest.mark.parametrize(
    "name, value",
    [
        ("n", 0),
        ("n", 1.5),
        ("body_bytes", -1),
        ("run_seconds", 0.0),
        ("body_seconds", float("nan")),
        ("stop", -1),
    ],
)
def test_limits_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"limit {name} "):
        Limits(**{name: value})


def test_limits_that_forbid() -> None:
    assert Limits(top_logprobs=0, queue_requests=0, queue_tokens=None).top_logprobs == 0
