"""The layers of ARCHITECTURE.md, kept by reading every import of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sgl_like"
LINKS = ("frontend", "runtime", "kernels")
MAX_LINES = 400

# Bottom to top. A module may import what stands on a lower line, and what is in its own entry; entries on one
# line never see each other. An entry may be several modules that belong together.
LAYERS: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("sgl_like.errors",),),
    (("sgl_like.kernels",),),
    (
        (
            "sgl_like.runtime.config",
            "sgl_like.runtime.sampling_params",
            "sgl_like.runtime.logprobs",
            "sgl_like.runtime.protocol",
            "sgl_like.runtime.forward_batch",
            "sgl_like.runtime.reasoning",
        ),
    ),
    (("sgl_like.runtime.tokenizer",),),
    (("sgl_like.runtime.cache",), ("sgl_like.runtime.constrain",), ("sgl_like.runtime.sampling",)),
    (("sgl_like.runtime.models",),),
    (("sgl_like.runtime.engine",),),
    (("sgl_like.runtime.server",),),
    (("sgl_like.frontend",),),
    (("sgl_like", "sgl_like.cli", "sgl_like.__main__"),),
)

# What a package may import besides the standard library, if that is limited.
ALLOWED = {
    "sgl_like.errors": set(),
    # llvmlite is the part of numba that intrinsics are written in
    "sgl_like.kernels": {
        "torch",
        "triton",
        "numba",
        "llvmlite",
        "numpy",
        "sgl_like.errors",
        "sgl_like.kernels",
    },
    "sgl_like.runtime.constrain": {
        "numpy",
        "numba",
        "interegular",
        "lark",
        "sgl_like.kernels.jit",  # needs numba only, and keeps the machine code in one place
        "sgl_like.kernels.trim",  # needs nothing
        "sgl_like.errors",
        "sgl_like.runtime.constrain",
    },
}

VALUES = LAYERS[2][0]


def _python_files(folder: Path) -> list[Path]:
    """Python files below a folder, not through links and not in hidden or built folders."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or path.name.startswith(".") or path.name in ("build", "dist", "__pycache__"):
            continue
        if path.is_dir() and not (path / "pyvenv.cfg").exists():
            found += _python_files(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import in a file, wherever in the file it stands.

    ``from sgl_like.runtime import cache`` counts as an import of ``sgl_like.runtime.cache``.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield node.lineno, whole if _is_module(whole) else node.module


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("sgl_like.") and (path.is_dir() or path.with_suffix(".py").is_file())


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _place(module: str) -> tuple[int, int]:
    """Line and entry of LAYERS where a module stands: that of its longest prefix."""
    best: tuple[int, tuple[int, int]] | None = None
    for rank, layer in enumerate(LAYERS):
        for position, entry in enumerate(layer):
            for package in entry:
                exact_only = package == "sgl_like"
                fits = module == package if exact_only else _within(module, package)
                if fits and (best is None or len(package) > best[0]):
                    best = (len(package), (rank, position))
    assert best is not None, f"{module} has no place in LAYERS (tests/test_architecture.py)"
    return best[1]


SOURCES = _python_files(PACKAGE)
# A package that only holds packages belongs to no layer; it is a docstring (see the test on __init__ files).
PLACED = [path for path in SOURCES if _module_name(path) != "sgl_like.runtime"]


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PLACED, ids=_ids)
def test_imports_only_what_stands_below(path: Path) -> None:
    module = _module_name(path)
    rank, position = _place(module)
    for line, imported in _imports(path):
        if not _within(imported, "sgl_like"):
            continue
        other_rank, other_position = _place(imported)
        if imported == "sgl_like" and module.startswith("sgl_like.cli"):
            continue
        same = (rank, position) == (other_rank, other_position)
        assert same or other_rank < rank, f"{_ids(path)}:{line}: {module} must not import {imported}"


@pytest.mark.parametrize("package", ALLOWED)
def test_limited_packages_import_nothing_else(package: str) -> None:
    for path in SOURCES:
        if not _within(_module_name(path), package):
            continue
        for line, imported in _imports(path):
            standard = imported.split(".")[0] in sys.stdlib_module_names
            allowed = any(_within(imported, name) for name in ALLOWED[package])
            assert standard or allowed, f"{_ids(path)}:{line}: {package} must not import {imported}"


def test_frontend_knows_no_tensors_and_reaches_the_engine_only_in_backend() -> None:
    for path in SOURCES:
        module = _module_name(path)
        if not _within(module, "sgl_like.frontend"):
            continue
        for line, imported in _imports(path):
            where = f"{_ids(path)}:{line}"
            top = imported.split(".")[0]
            assert top not in {"torch", "triton", "numba"}, f"{where}: the frontend knows no tensors"
            assert not _within(imported, "sgl_like.kernels"), f"{where}: the frontend knows no tensors"
            if not _within(module, "sgl_like.frontend.backend") and imported not in VALUES:
                assert not _within(imported, "sgl_like.runtime"), (
                    f"{where}: only frontend/backend may import {imported}"
                )


@pytest.mark.parametrize("folder", ["sgl_like", "tests", "examples"])
def test_nothing_is_imported_through_the_links(folder: str) -> None:
    for path in _python_files(ROOT / folder):
        for line, imported in _imports(path):
            top = imported.split(".")[0]
            assert top not in LINKS, f"{_ids(path)}:{line}: import sgl_like.{imported}, not {imported}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name == "__init__.py"], ids=_ids)
def test_package_init_is_a_docstring(path: Path) -> None:
    if path.parent == PACKAGE:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{_ids(path)} has no docstring"
    assert len(tree.body) == 1, f"{_ids(path)} holds more than a docstring"


def test_every_package_has_an_init() -> None:
    for path in SOURCES:
        assert (path.parent / "__init__.py").is_file(), f"{_ids(path.parent)} has no __init__.py"


def test_files_are_short() -> None:
    tests = ROOT / "tests"
    long = {
        _ids(path): lines
        for path in _python_files(ROOT)
        if tests not in path.parents
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long, f"over {MAX_LINES} lines: {long}"


@pytest.mark.parametrize("name", LINKS)
def test_the_parts_are_doors_at_the_top(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert link.resolve() == PACKAGE / name


def test_importing_sgl_like_loads_nothing_heavy() -> None:
    code = (
        "import sys, sgl_like; sgl_like.__all__; heavy = {'torch', 'numba', 'numpy', 'transformers', 'tokenizers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, sgl_like.cli.main; heavy = {'torch', 'numba', 'transformers'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_readers_see_violations(tmp_path: Path) -> None:
    """The test's own eyes: forms of import that a simpler reader would miss."""
    file = tmp_path / "sample.py"
    file.write_text(
        "def f():\n    from sgl_like.runtime import cache\n    import runtime.cache as c\n    return cache, c\n"
    )
    assert list(_imports(file)) == [(2, "sgl_like.runtime.cache"), (3, "runtime.cache")]
    assert _place("sgl_like.runtime.cache.radix")[0] == _place("sgl_like.runtime.constrain.mask")[0]
    assert _place("sgl_like.runtime.cache.radix") != _place("sgl_like.runtime.constrain.mask")
    with pytest.raises(AssertionError, match="no place"):
        _place("sgl_like.novelty")
