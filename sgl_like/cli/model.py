"""The `--model` option: telling a mistyped path at once, one model from another in the same place, and loading it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sgl_like.errors import DataError, ModelLoadError

EMBEDDED = Path(__file__).parents[1] / "assets" / "tiny"
_SUFFIXES = {".json", ".jinja", ".safetensors"}
_WHOLE = 64 << 20
_END = 1 << 20


def check_model(model: str | None) -> None:
    """Refuse what is plainly no model before anything is loaded; an id is for the engine to find.

    Raises:
        ModelLoadError: it looks like a path, and there is no such folder.
    """
    if model is None or Path(model).is_dir():
        return
    if Path(model).exists():
        raise ModelLoadError(f"{model}: is not a model folder")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or not model:
        raise ModelLoadError(f"{model}: no such model folder")


def load_model(model: str | None, dtype: str) -> Any:
    """A `sgl_like.Runtime`, to be stopped at the end of a ``with`` block.

    Raises:
        ModelLoadError: there is no such model, or it cannot be used.
    """
    import sgl_like as sgl

    return sgl.Runtime(model_path=model, dtype=dtype)


def model_digest(model: str | None) -> str | None:
    """A digest of the files of a model folder, so that a run is not continued with other weights.

    Files over 64 MiB count by size and by their first and last MiB, which training changes too. ``None`` for an
    id: what it stands for is known only to the hub.

    Raises:
        DataError: a file cannot be read.
    """
    folder = EMBEDDED if model is None else Path(model)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file()):
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(f"{path.name} {size}\n".encode())
                if size <= _WHOLE:
                    digest.update(file.read())
                    continue
                digest.update(file.read(_END))
                file.seek(-_END, 2)
                digest.update(file.read(_END))
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:16]
