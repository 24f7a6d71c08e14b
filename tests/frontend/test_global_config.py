"""Settings of the process: each has its effect, or says that it has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.global_config import _DEFAULTS
from tests.support.frontend_fake_backend import FakeBackend


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    vars(sgl.global_config).update(_DEFAULTS)


@sgl.function
def program(s: Any) -> None:
    s += "x" + sgl.gen("a")


@sgl.function
async def async_program(s: Any) -> None:
    s += "y" + sgl.gen("a")


def test_verbosity_prints_what_was_run(backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    program()
    assert capsys.readouterr().out == ""
    sgl.global_config.verbosity = 2
    program()
    async_program()
    assert capsys.readouterr().out == "xanswer 2\nyanswer 3\n"


def test_the_default_backend(backend: FakeBackend) -> None:
    assert sgl.global_config.default_backend is backend
    other = FakeBackend()
    sgl.global_config.default_backend = other
    program()
    assert len(other.calls) == 1 and not backend.calls
    with pytest.raises(TypeError, match="a backend is needed"):
        sgl.global_config.default_backend = "http://localhost"  # type: ignore[assignment]


def test_special_tokens_in_outputs(backend: FakeBackend) -> None:
    program()
    sgl.global_config.skip_special_tokens_in_output = False
    program()
    assert [call.params.get("skip_special_tokens") for call in backend.calls] == [None, False]


def test_what_has_no_effect_says_so() -> None:
    for name in ("spaces_between_special_tokens_in_out", "enable_parallel_encoding"):
        setattr(sgl.global_config, name, True)
        with pytest.warns(UserWarning, match=f"global_config.{name}=False has no effect: .+"):
            setattr(sgl.global_config, name, False)


def test_mistakes() -> None:
    with pytest.raises(AttributeError, match="no 'verbose'; did you mean 'verbosity'"):
        sgl.global_config.verbose = 2  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="verbosity must be of type int, not True"):
        sgl.global_config.verbosity = True
