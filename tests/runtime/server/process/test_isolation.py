"""Nobody else gets between front and engine, and nothing that is sent can run code (serving.md, AT 9)."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT, served

PICKLES = frozenset({"pickle", "cPickle", "dill", "marshal", "shelve", "cloudpickle", "joblib", "jsonpickle"})
SOURCES = sorted(
    path
    for path in (ROOT / "sgl_like").rglob("*.py")
    if not path.is_symlink() and not any(part.startswith(".") for part in path.parts)
)


def offences(source: str) -> Iterator[str]:
    """What in a program could turn bytes into code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
            if called in ("torch.load", "torch.jit.load") and not safe:
                yield called
            if re.search(r"allow_pickle=True|multiprocessing\.(Process|Queue|Pool|Pipe)", ast.unparse(node)):
                yield ast.unparse(node)
            continue
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PICKLES | {"multiprocessing"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_pickled(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    found = list(offences(source))
    if (
        path == ROOT / "sgl_like/frontend/outputs/values.py"
    ):  # asks whether a value can be pickled; reads none
        assert set(re.findall(r"pickle\.(\w+)", source)) == {"dumps"}
        found.remove("pickle")
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "def f():\n    import marshal as m",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "from multiprocessing import Queue",
    ],
)
def test_the_reader_sees(source: str) -> None:
    assert list(offences(source))


def listening(pid: int) -> set[str]:
    """Sockets of a process that somebody could connect to: TCP ports, and paths of Unix sockets."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
        except FileNotFoundError:
            continue
        if found:
            inodes.add(found[1])
    open_to: set[str] = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or name.startswith("udp")):
                open_to.add(f"{name} {int(fields[1].rpartition(':')[2], 16)}")
    for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[6] in inodes and len(fields) > 7:
            open_to.add(f"unix {fields[7]}")
    return open_to


def test_the_only_door_is_the_http_port() -> None:
    with served("--dtype", "float32") as server:
        port = server.url.rpartition(":")[2]
        assert listening(server.process.pid) == {f"tcp {port}"}
        assert listening(server.engine_pid) == set()
