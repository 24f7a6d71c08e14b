from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch


def test_the_fastest_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sgl_like.kernels.triton import tuning

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    path = tmp_path / "deeper" / "device.json"
    monkeypatch.setattr(tuning, "_path", lambda: path)
    tried = []

    def seconds(run: object, config: dict[str, int]) -> float:
        tried.append(config["N"])
        return {16: 3.0, 32: 1.0, 64: float("inf")}[config["N"]]

    monkeypatch.setattr(tuning, "_seconds", seconds)
    configs = [{"N": n} for n in (16, 32, 64)]

    def choose() -> dict[str, int]:
        return tuning.choose("op", (1, "a"), configs, lambda config: None)

    tuning._known.cache_clear()
    try:
        assert choose() == choose() == {"N": 32}
        assert tried == [16, 32, 64]
        tuning._known.cache_clear()  # another process
        assert choose() == {"N": 32} and len(tried) == 3
        assert json.loads(path.read_text()) == {"op/1/a": {"N": 32}}
        path.write_text("half of a fi")
        tuning._known.cache_clear()
        assert choose() == {"N": 32} and len(tried) == 6
    finally:
        tuning._known.cache_clear()


def test_without_a_gpu_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from sgl_like.kernels.triton import tuning

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tuning.choose("op", (), [{"N": 1}, {"N": 2}], lambda config: None) == {"N": 1}
