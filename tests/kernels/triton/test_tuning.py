from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from sgl_like.kernels.triton.tuning import Tuner

CONFIGS = [{"N": n} for n in (16, 32, 64)]
SECONDS = {16: 3.0, 32: 1.0, 64: 2.0}


class Clock:
    """Says how long a run takes by what it ran; the configurations that were tried are kept in `tried`."""

    def __init__(self, seconds: dict[int, float] = SECONDS) -> None:
        self.tried: list[int] = []
        self._seconds = seconds

    def run(self, config: dict[str, int]) -> None:
        if config["N"] not in self._seconds:
            raise RuntimeError("out of resource: shared memory")
        self.tried.append(config["N"])

    def seconds(self, run: Callable[[], None]) -> float:
        run()
        return self._seconds[self.tried[-1]]


def tuner(path: Path, clock: Clock, capturing: Callable[[], bool] = lambda: False) -> Tuner:
    from sgl_like.kernels.triton.tuning import Tuner

    return Tuner(path, clock.seconds, capturing)


def test_the_fastest_is_kept_on_disk(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "deeper" / "device.json"
    first = tuner(path, clock)
    for _ in range(2):
        assert first.choose("op", (1, "a"), CONFIGS, clock.run) == {"N": 32}
    assert clock.tried == [16, 32, 64]
    assert tuner(path, clock).choose("op", (1, "a"), CONFIGS, clock.run) == {"N": 32}  # another process
    assert len(clock.tried) == 3
    assert json.loads(path.read_text()) == {"op/1/a": {"N": 32}}
    assert first.choose("op", (2, "a"), CONFIGS, clock.run) == {"N": 32}
    assert len(clock.tried) == 6


def test_what_cannot_be_launched_is_not_chosen(tmp_path: Path) -> None:
    clock = Clock({16: 3.0, 64: 4.0})
    assert tuner(tmp_path / "a.json", clock).choose("op", (), CONFIGS, clock.run) == {"N": 16}
    assert clock.tried == [16, 64]
    path = tmp_path / "b.json"
    assert tuner(path, Clock({})).choose("op", (), CONFIGS, Clock({}).run) == {"N": 16}
    assert not path.exists()  # memory may have been short: to be tried again by the next process


def test_nothing_is_run_while_a_graph_is_captured(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "a.json"
    graph = [True]
    found = tuner(path, clock, lambda: graph[0])
    assert found.choose("op", (), CONFIGS, clock.run) == {"N": 16}
    assert not clock.tried and not path.exists()
    graph[0] = False
    found.choose("op", (), CONFIGS, clock.run)
    graph[0] = True
    assert found.choose("op", (), CONFIGS, clock.run) == {"N": 32}


def test_a_configuration_that_is_no_more_is_not_used(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "a.json"
    path.write_text('{"op/": {"N": 128}, "op": {"N": 128}}')
    assert tuner(path, clock).choose("op", (), CONFIGS, clock.run) == {"N": 32}
    assert json.loads(path.read_text())["op"] == {"N": 32}


@pytest.mark.parametrize("content", ["", "half of a fi", "[1]", '{"op": 3}', '{"op": {"N": null}}', "\udc80"])
def test_a_broken_file_is_written_anew(content: str, tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "a.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert tuner(path, clock).choose("op", (), CONFIGS, clock.run) == {"N": 32}
    assert json.loads(path.read_text()) == {"op": {"N": 32}}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    clock = Clock()
    found = tuner(tmp_path / "file" / "a.json", clock)
    for _ in range(2):
        assert found.choose("op", (), CONFIGS, clock.run) == {"N": 32}
    assert len(clock.tried) == 3


def test_what_others_write_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def work(name: int) -> None:  # like a process: a lock belongs to the opened file
        clock = Clock()
        found = tuner(path, clock)
        for i in range(30):
            found.choose("op", (name, i), CONFIGS, clock.run)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(json.loads(path.read_text())) == 4 * 30
    assert {each.name for each in tmp_path.iterdir()} == {"a.json", "a.lock"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_first_is_taken() -> None:
    from sgl_like.kernels.triton import tuning

    clock = Clock()
    assert tuning.choose("op", (), CONFIGS, clock.run) == {"N": 16}
    assert not clock.tried
