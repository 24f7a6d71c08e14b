"""``image`` and ``video``: from whatever holds a picture to an image file in memory with its right MIME type.

Files stay as they are; their type is read from their first bytes, never from their name. Pixels (PIL images,
tensors) become PNG files, which lose nothing. Everything is read when the expression is made, so a wrong path is an
error in the line that has it.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Picture
from sgl_like.frontend.expr import Node

__all__ = ["Image", "image", "video"]

_CHANNELS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour types: grey, grey with alpha, RGB, RGBA


@dataclass(frozen=True, repr=False)
class Image(Node):
    """One or more pictures of the prompt. `call` is how the program wrote it."""

    pictures: tuple[Picture, ...]
    call: str

    @property
    def label(self) -> str:
        """What errors call it."""
        return self.call


def image(source: Any) -> Image:
    """An image, as part of a message or prompt. The backend's model must be one that sees images.

    Args:
        source: path of a PNG, JPEG, GIF, WebP, BMP or TIFF file; the bytes of one; a PIL image; or a tensor
            ``[channels, height, width]`` of 1 to 4 channels, of bytes or of floats from 0 to 1.

    Raises:
        RequestError: it is none of these, or cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        call = f"image({os.fspath(source)!r})"
        return Image((_picture(_read(Path(source), call), call),), call)
    call = f"image({type(source).__name__})"
    if isinstance(source, (bytes, bytearray)):
        return Image((_picture(bytes(source), call),), call)
    if hasattr(source, "save") and hasattr(source, "getbands"):
        return Image((_from_pil(source),), call)
    if hasattr(source, "detach"):
        return Image((_from_tensor(source),), call)
    raise RequestError(f"{call}: a path, bytes, a PIL image or a tensor is needed")


def video(path: str | os.PathLike[str], num_frames: int) -> Image:
    """A video, shown to the model as `num_frames` images taken from it at equal distances. Needs OpenCV.

    Raises:
        RequestError: `num_frames` is not at least 1, OpenCV is not installed, or the file is no video it can read.
    """
    call = f"video({os.fspath(path)!r}, {num_frames})"
    if isinstance(num_frames, bool) or not isinstance(num_frames, int) or num_frames < 1:
        raise RequestError(f"{call}: num_frames must be an integer of at least 1")
    if not Path(path).is_file():
        raise RequestError(f"{call}: there is no such file")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise RequestError(
            f"{call}: reading videos needs OpenCV: pip install opencv-python-headless"
        ) from error
    return Image(tuple(_frames(cv2, str(path), num_frames, call)), call)


def _frames(cv2: Any, path: str, wanted: int, call: str) -> list[Picture]:
    capture = cv2.VideoCapture(path)
    try:
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        last = max(total - 1, 0)
        places = [round(last * at / max(wanted - 1, 1)) for at in range(wanted)]
        found: list[Picture] = []
        for place in dict.fromkeys(places):  # a video of fewer frames has fewer images
            capture.set(cv2.CAP_PROP_POS_FRAMES, place)
            read, frame = capture.read()
            if not read:
                break
            found.append(Picture(cv2.imencode(".png", frame)[1].tobytes(), "image/png"))
    finally:
        capture.release()
    if not found:
        raise RequestError(f"{call}: OpenCV reads no frame from it")
    return found


def _read(path: Path, call: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{call}: cannot be read: {error.strerror or error}") from error


def _picture(data: bytes, call: str) -> Picture:
    mime = _mime(data)
    if mime is None:
        raise RequestError(f"{call}: not an image; known are PNG, JPEG, GIF, WebP, BMP and TIFF files")
    return Picture(data, mime)


def _mime(data: bytes) -> str | None:
    """Type of an image file, by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    marks = {
        b"\x89PNG\r\n\x1a\n": "image/png",
        b"\xff\xd8\xff": "image/jpeg",
        b"GIF87a": "image/gif",
        b"GIF89a": "image/gif",
        b"BM": "image/bmp",
        b"II*\0": "image/tiff",
        b"MM\0*": "image/tiff",
    }
    return next((mime for mark, mime in marks.items() if data.startswith(mark)), None)


def _from_pil(source: Any) -> Picture:
    file = io.BytesIO()
    try:
        source.save(file, format="PNG")
    except (OSError, ValueError) as error:  # a mode that PNG does not have, such as CMYK
        file = io.BytesIO()
        try:
            source.convert("RGBA" if "A" in source.getbands() else "RGB").save(file, format="PNG")
        except (OSError, ValueError):
            raise RequestError(
                f"image({type(source).__name__}): cannot be written as PNG: {error}"
            ) from error
    return Picture(file.getvalue(), "image/png")


def _from_tensor(source: Any) -> Picture:
    shape = tuple(source.shape)
    if len(shape) != 3 or shape[0] not in _CHANNELS or 0 in shape:
        raise RequestError(
            f"image(Tensor): the shape must be [1 to 4 channels, height, width], not {list(shape)}"
        )
    pixels = source.detach().cpu()
    if pixels.is_floating_point():
        if not bool((pixels >= 0).all() and (pixels <= 1).all()):
            raise RequestError("image(Tensor): floats must be from 0 to 1")
        pixels = (pixels.float() * 255).round()
    elif pixels.element_size() != 1 or bool((pixels < 0).any()):
        raise RequestError(
            f"image(Tensor): bytes (uint8) or floats from 0 to 1 are needed, not {pixels.dtype}"
        )
    rows = pixels.byte().permute(1, 2, 0).contiguous().numpy()  # [height, width, channels]
    return Picture(_png(rows.tobytes(), shape[2], shape[1], shape[0]), "image/png")


def _png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    """A PNG file (W3C PNG specification) of bytes ``[height, width, channels]``, rows unfiltered."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    stride = width * channels
    rows = b"".join(b"\0" + pixels[at : at + stride] for at in range(0, len(pixels), stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _CHANNELS[channels], 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
