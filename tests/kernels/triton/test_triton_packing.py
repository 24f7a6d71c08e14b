from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sgl_like.kernels.device_linear import Int4DeviceLinear
from sgl_like.runtime.models.load import load_model
from tests.runtime.models.test_packing import AWQ, GPTQ, IDS, folders
from tests.support.forward import run


@pytest.mark.parametrize("config, group", [(AWQ, 128), (GPTQ, 32)])
def test_packed_layers_stay_packed(
    config: dict[str, object], group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, with the linear layers alone in Triton."""
    plain, packed = folders(tmp_path, group, config)
    expected = run(load_model(plain, "float32"), IDS, [6])
    monkeypatch.setattr("sgl_like.kernels.linear.by_triton", lambda device: True)
    model = load_model(packed, "float32")
    layer = model._blocks[0].mlp.down  # type: ignore[attr-defined]
    assert isinstance(layer, Int4DeviceLinear) and layer.weight.group == group
    torch.testing.assert_close(run(model, IDS, [6]), expected, atol=1e-4, rtol=1e-4)
