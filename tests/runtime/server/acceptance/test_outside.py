"""Acceptance tests 10 to 12 of serving.md: nothing that comes from outside is fetched or executed."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import sgl_like
from sgl_like.errors import ModelLoadError
from tests.support.processes import served
from tests.support.small_model import make_model

WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(repr((event, arguments[1:] if event == "socket.connect" else arguments)) + chr(10))

sys.addaudithook(watch)
"""
MARKDOWN = "![x](http://192.0.2.1/x.png)"
SOURCE = {"type": "image", "source": {"type": "url", "url": "http://192.0.2.1/"}}
IMAGE = {"type": "image_url", "image_url": {"url": "http://192.0.2.1/image.png"}}
OUTSIDE: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "hi", "max_tokens": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [IMAGE]}], "max_tokens": 1}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": MARKDOWN}], "max_tokens": 1}),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 2, "json_schema": '{"$ref": "http://192.0.2.1/schema.json"}'}),
    ("/v1/completions", {"prompt": "hi", "max_tokens": 2, "model": "http://192.0.2.1/model"}),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://192.0.2.1/"}]}]}),
    ("/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": [SOURCE]}]}),
    ("/generate", {"text": "hi", "image_data": "http://192.0.2.1/image.png", "sampling_params": {"max_new_tokens": 1}}),
    ("/generate", {"text": "hi", "lora_path": "somebody/something", "sampling_params": {"max_new_tokens": 1}}),
    ("/v1/completions", {"prompt": "hi", "prompt_embeds": "gASVAAAAAA==", "max_tokens": 1}),
    ("/v1/embeddings", {"input": "hi"}),
    ("/api/pull", {"model": "http://192.0.2.1/model"}),
]  # fmt: skip


def test_12_the_server_connects_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "log"
    log.touch()
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with served(environment={"PYTHONPATH": path, "WATCHED": str(log)}) as server:
        assert server.call("POST", *OUTSIDE[0])[0] == 200
        for route, body in OUTSIDE:
            status, answer = server.call("POST", route, body)
            assert status == 200 or 400 <= status < 500, (route, body, answer)
        assert server.is_ready()
    outside = [
        line for line in log.read_text().splitlines() if "127.0.0.1" not in line and "sock" not in line[20:]
    ]
    assert outside == []


def test_12_the_watch_would_see_it(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "sitecustomize.py").write_text(WATCH)
    log = tmp_path / "log"
    code = "import socket; s = socket.socket(); s.setblocking(False); s.connect_ex(('192.0.2.1', 9))"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "WATCHED": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "192.0.2.1" in log.read_text()


def model_with_code(tmp_path: Path, **config: Any) -> Path:
    """A model that brings code along, which leaves a trace where it is executed."""
    folder = make_model(tmp_path / "model", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, **config)
    (folder / "modeling_evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Evil: pass\n")
    return folder


def test_11_code_that_a_model_brings_along_is_never_executed(tmp_path: Path) -> None:
    """Many models of families that are known here name code for old versions of `transformers`: it is passed over."""
    folder = model_with_code(tmp_path)
    with sgl_like.Engine(folder, kv_cache_memory=2**20) as engine:
        assert engine.generate("hi", {"max_new_tokens": 2})["meta_info"]["completion_tokens"] > 0
    assert not (tmp_path / "executed").exists()


def test_11_nor_is_a_model_loaded_that_is_nothing_but_code(tmp_path: Path) -> None:
    folder = model_with_code(tmp_path, architectures=["EvilForCausalLM"], model_type="evil")
    with pytest.raises(ModelLoadError):
        sgl_like.Engine(folder)
    assert not (tmp_path / "executed").exists()


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> Any:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
def test_11_weights_are_safetensors_and_nothing_else(tmp_path: Path, name: str) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Trap(tmp_path / "executed")))
    if name == "pytorch_model.bin":
        index = {"weight_map": {"model.embed_tokens.weight": name}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError):
        sgl_like.Engine(folder)
    assert not (tmp_path / "executed").exists()
