"""The second tier: what comes back is what was saved, and damage of any kind is a miss."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sgl_like.runtime.cache.host_tier import BLOCK, HostTier, as_bytes, model_fingerprint
from sgl_like.runtime.cache.kv_pool import KVPool
from sgl_like.runtime.cache.pages import Slots
from sgl_like.runtime.cache.radix_cache import Tokens

SLOTS = 400


def tier(
    folder: Path, model: str = "model", limit: int = 10**8, dtype: torch.dtype = torch.bfloat16
) -> HostTier:
    pool = KVPool(3, SLOTS, 2, 8, dtype)
    for each in (pool.keys, pool.values):
        each.copy_(torch.randn(each.shape))
    return HostTier(folder, pool, model, limit)


def sequence(length: int, seed: int = 0) -> tuple[Tokens, Slots]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 1000, length).astype(np.int32)
    return tokens, rng.permutation(SLOTS)[:length].astype(np.int32)


def saved(folder: Path, length: int = 3 * BLOCK, seed: int = 0) -> HostTier:
    """A tier that has written one sequence and is closed."""
    first = tier(folder)
    first.save(*sequence(length, seed), 0, "")
    first.close()
    return first


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("start, end", [(0, 192), (64, 192), (10, 100), (100, 128), (150, 190)])
def test_a_later_process_reads_what_was_saved(
    tmp_path: Path, dtype: torch.dtype, start: int, end: int
) -> None:
    first = tier(tmp_path, dtype=dtype)
    tokens, slots = sequence(200)
    first.save(tokens, slots, 0, "")
    first.close()
    second = tier(tmp_path, dtype=dtype)
    assert second.find(tokens, start, "") == 192
    into = np.random.default_rng(1).permutation(SLOTS)[: end - start].astype(np.int32)
    untouched = np.setdiff1d(np.arange(SLOTS), into)
    before = as_bytes(second._pool.keys)[:, untouched].clone()
    assert second.load(tokens, start, into, "") == end - start
    for ours, theirs in ((second._pool.keys, first._pool.keys), (second._pool.values, first._pool.values)):
        assert torch.equal(as_bytes(ours)[:, into], as_bytes(theirs)[:, slots[start:end]])
    assert torch.equal(as_bytes(second._pool.keys)[:, untouched], before)
    second.close()


def test_what_is_not_there_is_a_miss(tmp_path: Path) -> None:
    saved(tmp_path)
    tokens, _ = sequence(200)
    other = tokens.copy()
    other[70] += 1
    for model, namespace, prompt, found in (
        ("model", "", tokens, 192),
        ("model", "", other, 64),
        ("model", "", tokens[:100], 64),
        ("model", "", tokens[1:], 0),
        ("model", "tenant", tokens, 0),
        ("another", "", tokens, 0),
    ):
        there = tier(tmp_path, model)
        assert there.find(prompt, 0, namespace) == found
        there.close()


@pytest.mark.parametrize("kind", ["cut", "longer", "empty", "swapped", "renamed header", "gone", "a folder"])
def test_a_damaged_file_is_a_miss_and_goes(tmp_path: Path, kind: str) -> None:
    saved(tmp_path)
    tokens, _ = sequence(200)
    there = tier(tmp_path)
    victim = next(tmp_path / name for at, name in there._names(tokens, "") if at == BLOCK)
    data = victim.read_bytes()
    if kind == "cut":
        victim.write_bytes(data[:-1])
    elif kind == "longer":
        victim.write_bytes(data + b"x")
    elif kind == "empty":
        victim.write_bytes(b"")
    elif kind == "swapped":
        victim.write_bytes(next(path for path in files(tmp_path) if path != victim).read_bytes())
    elif kind == "renamed header":
        victim.write_bytes(data.replace(b"kv block 1", b"kv block 0"))
    else:
        victim.unlink()
        if kind == "a folder":
            victim.mkdir()
    into = np.arange(192, dtype=np.int32)
    assert there.load(tokens, 0, into, "") == BLOCK
    assert kind == "a folder" or not victim.exists()
    there.close()


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    saved(tmp_path, BLOCK)
    (victim,) = files(tmp_path)
    data, rng = victim.read_bytes(), random.Random(0)
    tokens, _ = sequence(BLOCK)
    there = tier(tmp_path)
    for _ in range(300):
        at = rng.randrange(len(data))
        victim.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        assert there.load(tokens, 0, np.arange(BLOCK, dtype=np.int32), "") == 0 and not victim.exists()
    there.close()


def test_files_stay_within_the_limit_and_the_longest_unused_go(tmp_path: Path) -> None:
    size = tier(tmp_path / "other").layout.file_bytes
    folder = tmp_path / "blocks"
    writer = tier(folder, limit=10 * size)
    for seed in range(10):
        writer.save(*sequence(BLOCK, seed), 0, "")
    writer._to_write.join()
    for age, path in enumerate(files(folder)):
        os.utime(path, (age, age))
    oldest, *_, newest = files(folder)
    writer.save(*sequence(BLOCK, 10), 0, "")
    writer.close()
    left = files(folder)
    assert sum(path.stat().st_size for path in left) <= 10 * size
    assert oldest not in left and newest in left


def test_a_disk_that_is_full_loses_blocks_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = tier(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sgl_like.runtime.cache.host_tier.write_block", full)
        writer.save(*sequence(BLOCK), 0, "")
        writer._to_write.join()
    assert "No space left" in caplog.text and not files(tmp_path)
    writer.save(*sequence(BLOCK), 0, "")  # there is room again
    writer.close()
    assert len(files(tmp_path)) == 1


def test_a_slow_disk_loses_blocks_instead_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr("sgl_like.runtime.cache.host_tier.PENDING_BYTES", 0)
    monkeypatch.setattr("sgl_like.runtime.cache.host_tier.write_block", lambda *_: go.wait())
    writer = tier(tmp_path)
    for seed in range(20):
        writer.save(*sequence(BLOCK, seed), 0, "")  # does not wait
    assert len(writer._known) == 2
    go.set()
    writer.close()


def test_half_written_files_are_no_blocks_and_go_some_day(tmp_path: Path) -> None:
    saved(tmp_path, BLOCK)
    (block,) = files(tmp_path)
    old, new = tmp_path / f".{block.name}.1", tmp_path / f".{block.name}.2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    tier(tmp_path).close()
    assert not old.exists() and new.exists()


def test_processes_share_a_folder(tmp_path: Path) -> None:
    tiers = [tier(tmp_path, limit=40 * 20_000) for _ in range(4)]

    def work(which: HostTier, seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(60):
            tokens, slots = sequence(2 * BLOCK, rng.randrange(30))
            which.save(tokens, slots, 0, "")
            which.load(tokens, 0, slots, "")

    threads = [threading.Thread(target=work, args=(t, i)) for i, t in enumerate(tiers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in tiers:
        each.close()
    assert all(path.suffix == ".kv" for path in files(tmp_path))


def test_clear_removes_this_models_blocks(tmp_path: Path) -> None:
    saved(tmp_path)
    other = tier(tmp_path, "another")
    other.save(*sequence(BLOCK), 0, "")
    other.clear()
    other.close()
    assert len(files(tmp_path)) == 3


def test_fingerprint_depends_on_config_weights_and_options(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1")
    names = {model_fingerprint(tmp_path, "float32"), model_fingerprint(tmp_path, "bfloat16")}
    (tmp_path / "model.safetensors").write_bytes(b"12")
    names.add(model_fingerprint(tmp_path, "float32"))
    (tmp_path / "config.json").write_text("{ }")
    names.add(model_fingerprint(tmp_path, "float32"))
    assert len(names) == 4 and model_fingerprint(tmp_path, "float32") in names


def test_what_another_process_has_removed_is_saved_again(tmp_path: Path) -> None:
    there = tier(tmp_path)
    tokens, slots = sequence(BLOCK)
    for _ in range(2):
        there.save(tokens, slots, 0, "")
        there._to_write.join()
        (block,) = files(tmp_path)
        block.unlink()
        assert there.find(tokens, 0, "") == 0
    there.close()
