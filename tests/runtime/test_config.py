"""Engine options: complete after `resolve`, within what the machine and the model allow."""

from __future__ import annotations

import pytest

from sgl_like.errors import ConfigError
from sgl_like.runtime import config
from sgl_like.runtime.config import EngineConfig


def test_budget_is_bounded_by_memory_and_by_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_free_memory", lambda: 10 * config.GIB)
    few = EngineConfig(max_running_requests=2).resolve(model_context=100, bytes_per_slot=1000)
    assert few.kv_cache_memory == 2 * 2 * 100 * 1000 and few.context_length == 100
    many = EngineConfig().resolve(model_context=100_000, bytes_per_slot=100_000)
    assert many.kv_cache_memory == 2 * config.GIB


def test_given_values_win(monkeypatch: pytest.MonkeyPatch) -> None:
    given = EngineConfig(kv_cache_memory=5000, context_length=50).resolve(100, 1000)
    assert (given.kv_cache_memory, given.context_length) == (5000, 50)
    assert EngineConfig(context_length=5000).resolve(100, 1000).context_length == 100


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_running_requests": 0}, "max_running_requests must be an integer of at least 1, not 0"),
        ({"namespace_quota": 0}, "namespace_quota must be a number above 0 and at most 1, or None, not 0"),
        ({"namespace_quota": 1.5}, "namespace_quota must be a number above 0"),
        ({"threads": "2"}, "threads must be an integer of at least 1, not '2'"),
        ({"kv_cache_memory": True}, "kv_cache_memory must be an integer"),
        ({"kv_cache_mem": 3}, "unknown engine option 'kv_cache_mem'; did you mean 'kv_cache_memory'"),
        ({"zzz": 3}, "unknown engine option 'zzz'; known are device, dtype"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EngineConfig.from_options(options)
