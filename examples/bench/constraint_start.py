"""How long the constraint engine takes until the first mask: first use ever, later processes, nowhere to keep a cache.

    python examples/bench/constraint_start.py --bench ../shared/bench/constraints

Numba compiles the engine's kernels on first use and keeps the machine code (sgl_like/kernels/jit.py). Each row is a
process of its own, median of `--runs`:

* first use: an empty folder as NUMBA_CACHE_DIR;
* later: the same folder, filled by the process before;
* read-only home: home, user's cache folder and the package itself (a copy) cannot be written, NUMBA_CACHE_DIR is unset;
  root, who may write anywhere, runs it without that privilege (setpriv);
* read-only NUMBA_CACHE_DIR: the same, with one of the folders that cannot be written.

Columns are seconds: importing the engine (with numpy and numba), building the vocabulary of 131,072 tokens (after that
a process is ready), compiling a schema, its first mask; their sum; and a second schema with all masks of one output.
Python's own start and reading the Tekken file are not the engine's, and are left out of the sum. `files` is what Numba
has in its folder afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = ("python", "file", "import", "vocabulary", "compile", "mask", "sum", "second", "files")
SCHEMAS = [
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, tag: {"type": "array", "items": {"type": "integer"}}},
        "required": ["name"],
        "additionalProperties": False,
    }
    for tag in ("ids", "sizes")
]
OUTPUT = b'{"name":"Ann","sizes":[4,2]}'


def child(package: Path, bench: Path, site: list[str]) -> dict[str, float]:
    """Start the engine in this process; seconds of each part."""
    begun = perf_counter()
    sys.path.insert(0, str(bench))
    sys.path += site
    from tekken_vocab import Vocab

    vocab = Vocab()
    pieces = [vocab.token_bytes(i) or None for i in range(vocab.size)]
    times = {"file": perf_counter() - begun}

    sys.path.insert(0, str(package))
    begun = perf_counter()
    import numpy as np

    import sgl_like
    from sgl_like.runtime.constrain.compiler import GrammarCompiler
    from sgl_like.runtime.constrain.vocabulary import Vocabulary

    imported = perf_counter()
    assert Path(sgl_like.__file__).is_relative_to(package), f"{sgl_like.__file__} is not in {package}"
    compiler = GrammarCompiler(Vocabulary(pieces, [vocab.eos]))
    ready = perf_counter()
    mask = np.zeros((1, compiler.vocabulary.words), np.int32)
    grammar = compiler.compile_json_schema(SCHEMAS[0])
    compiled = perf_counter()
    grammar.matcher().fill_mask(mask, 0)
    first = perf_counter()
    matcher = compiler.compile_json_schema(SCHEMAS[1]).matcher()
    for byte in OUTPUT:
        matcher.fill_mask(mask, 0)
        assert mask.any() and matcher.accept_bytes(bytes([byte]))
    second = perf_counter()
    times |= {"import": imported - begun, "vocabulary": ready - imported, "compile": compiled - ready}
    return times | {"mask": first - compiled, "sum": first - begun, "second": second - first}


def start(
    options: argparse.Namespace, package: Path, changes: dict[str, str], drop: bool = False
) -> dict[str, float]:
    """Run `child` in a process of its own.

    Args:
        options: of the command line.
        package: folder that has sgl_like.
        changes: environment variables to set.
        drop: if this is root, without the privilege to write where permissions forbid it.
    """
    kept = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    command = [sys.executable, __file__, "--bench", str(options.bench), "--child", str(package)]
    command += [word for site in options.site for word in ("--site", site)]
    if drop and os.getuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    begun = perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=kept | changes, check=False)
    seconds = perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"the process failed:\n{done.stderr}")
    if done.stderr.strip():
        print(done.stderr.strip(), file=sys.stderr)
    times: dict[str, float] = json.loads(done.stdout)
    return times | {"python": seconds - sum(times[part] for part in ("file", "sum", "second"))}


def files(folder: Path) -> int:
    """How many files Numba has in a folder and those within."""
    return sum(path.suffix in (".nbi", ".nbc") for path in folder.rglob("*"))


def read_only_copy(folder: Path) -> Path:
    """A copy of the package within `folder`, with a home beside it, where nothing can be written."""
    place = folder / "read-only"
    shutil.copytree(
        ROOT / "sgl_like", place / "sgl_like", ignore=shutil.ignore_patterns("__pycache__", "assets")
    )
    (place / "home").mkdir()
    for path in [*place.rglob("*"), place]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return place


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """All rows, each with its runs; a run goes through all of them, so that they share what else the machine does."""
    rows: dict[str, list[dict[str, float]]] = {}
    place = read_only_copy(folder)
    home = str(place / "home")
    changes = {"HOME": home, "XDG_CACHE_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
    for run in range(options.runs):
        cache = folder / f"cache{run}"
        for name in ("first use", "later"):
            times = start(options, ROOT, {"NUMBA_CACHE_DIR": str(cache)})
            rows.setdefault(name, []).append(times | {"files": files(cache)})
        for name, more in (("read-only home", {}), ("read-only NUMBA_CACHE_DIR", {"NUMBA_CACHE_DIR": home})):
            times = start(options, place, changes | more, drop=True)
            rows.setdefault(name, []).append(times | {"files": files(place)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--bench", type=Path, default=Path("../shared/bench/constraints"), help="the races' folder"
    )
    parser.add_argument(
        "--site", action="append", default=[], help="site-packages that has mistral_common, put last"
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.bench = options.bench.resolve()
    if options.child:
        print(json.dumps(child(options.child, options.bench, options.site)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, Path(folder))
    print(f"| seconds, median of {options.runs} | {' | '.join(COLUMNS)} |\n|---|{'---:|' * len(COLUMNS)}")
    for name, runs in rows.items():
        cells = [f"{median(run[column] for run in runs):.3f}" for column in COLUMNS[:-1]]
        print(f"| {name} | {' | '.join(cells)} | {runs[-1]['files']:.0f} |")


if __name__ == "__main__":
    main()
