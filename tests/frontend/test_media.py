"""Images: what is read how, what a message with them looks like, and which backends take them.

Marks: b#30, c#24.
"""

from __future__ import annotations

import base64
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sgl_like as sgl
from sgl_like.frontend.backend.base import Segment
from sgl_like.frontend.media import Image
from tests.support.frontend_fake_backend import FakeBackend

PNG = b"\x89PNG\r\n\x1a\n"


class Seeing(FakeBackend):
    """A fake that takes images, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bytes]] = []

    @property
    def supports_images(self) -> bool:
        return True

    def encode(self, segments: Any, *, start: bool = False) -> list[int]:
        self.seen += [(each.picture.mime, each.picture.data) for each in segments if each.picture is not None]
        return super().encode([Segment(each.text, each.trusted) for each in segments], start=start)


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (PNG + b"x", "image/png"),
        (b"\xff\xd8\xff\xe0x", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\1\2\3\4WEBPx", "image/webp"),
        (b"BMx", "image/bmp"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
    ],
)
def test_b30_the_type_is_that_of_the_bytes_whatever_the_name(tmp_path: Path, data: bytes, mime: str) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data)):
        (picture,) = sgl.image(source).pictures
        assert (picture.data, picture.mime) == (data, mime)
        assert picture.data_url == f"data:{mime};base64,{base64.b64encode(data).decode()}"


def test_b30_c24_several_images_in_one_prompt_in_their_order() -> None:
    backend = Seeing()

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user(
            "A: " + sgl.image(PNG + b"1") + " B: " + sgl.image(b"GIF89a") + sgl.image(PNG + b"1") + "?"
        )
        s += sgl.assistant(sgl.gen("a"))

    state = program.run(backend=backend)
    assert backend.seen == [("image/png", PNG + b"1"), ("image/gif", b"GIF89a"), ("image/png", PNG + b"1")]
    png, gif = ({"url": sgl.image(data).pictures[0].data_url} for data in (PNG + b"1", b"GIF89a"))
    assert state.messages() == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "A: "},
                {"type": "image_url", "image_url": png},
                {"type": "text", "text": " B: "},
                {"type": "image_url", "image_url": gif},
                {"type": "image_url", "image_url": png},
                {"type": "text", "text": "?"},
            ],
        },
        {"role": "assistant", "content": "answer 1"},
    ]
    assert state.text().startswith("<|user|>A: <image> B: <image><image>?<|end|>")


def test_a_backend_for_text_says_so_before_the_call(backend: FakeBackend) -> None:
    @sgl.function
    def program(s: Any) -> None:
        s += sgl.user(sgl.image(PNG) + "what is it?")
        s += sgl.assistant(sgl.gen("a"))

    state = program()
    with pytest.raises(sgl.ProgramError, match=r"image\(bytes\).*takes text only") as caught:
        state["a"]
    assert isinstance(caught.value.__cause__, sgl.RequestError) and backend.calls == []


def test_forks_have_the_images_of_their_parent() -> None:
    backend = Seeing()

    @sgl.function
    def program(s: Any) -> None:
        s += sgl.image(PNG)
        forks = s.fork(2)
        forks += sgl.gen("a")
        forks.join()

    program.run(backend=backend)
    assert backend.seen == [("image/png", PNG)] * 2


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(sgl.RequestError, match=r"a\.png'\): not an image"):
        sgl.image(tmp_path / "a.png")
    with pytest.raises(sgl.RequestError, match=r"b\.png'\): cannot be read: No such file"):
        sgl.image(str(tmp_path / "b.png"))
    with pytest.raises(sgl.RequestError, match=r"image\(int\): a path, bytes"):
        sgl.image(3)


def _unpacked(png: bytes) -> tuple[int, int, int, bytes]:
    """Width, height, colour type and raw rows of a PNG file, read by a plain reader of its chunks."""
    at, chunks = 8, []
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(kind + body),)
        chunks.append((kind, body))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[0][1])
    assert depth == 8
    return width, height, colour, zlib.decompress(chunks[1][1])


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (2, 4), (3, 2), (4, 6)])
def test_tensors_become_png(channels: int, colour: int) -> None:
    import torch

    pixels = torch.arange(channels * 2 * 3, dtype=torch.uint8).reshape(channels, 2, 3)
    (picture,) = sgl.image(pixels).pictures
    rows = [bytes(pixels[c, y, x] for x in range(3) for c in range(channels)) for y in range(2)]
    assert _unpacked(picture.data) == (3, 2, colour, b"".join(b"\0" + row for row in rows))
    assert picture.mime == "image/png"
    floats = pixels.float() / 255
    assert sgl.image(floats) == Image(sgl.image(pixels).pictures, "image(Tensor)")


def test_tensors_that_are_no_pictures_are_named() -> None:
    import torch

    for bad, message in (
        (torch.zeros(5, 2, 2), r"\[5, 2, 2\]"),
        (torch.zeros(2, 2), r"\[2, 2\]"),
        (torch.full((3, 1, 1), 2.0), "from 0 to 1"),
        (torch.zeros(3, 1, 1, dtype=torch.int64), "int64"),
        (torch.full((3, 1, 1), -1, dtype=torch.int8), "int8"),
    ):
        with pytest.raises(sgl.RequestError, match=message):
            sgl.image(bad)


class FakePil:
    """What is used of a PIL image; one in CMYK, which PNG does not have, until it is converted."""

    def __init__(self, bands: str) -> None:
        self.bands = bands

    def getbands(self) -> tuple[str, ...]:
        return tuple(self.bands)

    def save(self, file: Any, format: str) -> None:
        file.write(PNG)
        if self.bands == "CMYK":
            raise OSError("cannot write mode CMYK as PNG")
        file.write(self.bands.encode())

    def convert(self, mode: str) -> FakePil:
        return FakePil(mode)


@pytest.mark.parametrize(("bands", "written"), [("RGB", b"RGB"), ("CMYK", b"RGB"), ("LA", b"LA")])
def test_pil_images_become_png(bands: str, written: bytes) -> None:
    (picture,) = sgl.image(FakePil(bands)).pictures
    assert (picture.mime, picture.data) == ("image/png", PNG + written)


def _fake_cv2(frames: int) -> ModuleType:
    """OpenCV as far as it is used; a frame is its number."""

    class Capture:
        def __init__(self, path: str) -> None:
            self.at = 0

        def get(self, what: int) -> float:
            return float(frames)

        def set(self, what: int, place: int) -> None:
            self.at = place

        def read(self) -> tuple[bool, int]:
            return self.at < frames, self.at

        def release(self) -> None:
            pass

    class Encoded:
        def __init__(self, frame: int) -> None:
            self.frame = frame

        def tobytes(self) -> bytes:
            return PNG + bytes([self.frame])

    cv2 = ModuleType("cv2")
    vars(cv2).update(CAP_PROP_FRAME_COUNT=7, CAP_PROP_POS_FRAMES=1, VideoCapture=Capture)
    vars(cv2)["imencode"] = lambda kind, frame: (True, Encoded(frame))
    return cv2


def test_videos_are_frames_at_equal_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"video")
    monkeypatch.setitem(sys.modules, "cv2", _fake_cv2(11))

    def shown(frames: int) -> list[int]:
        return [picture.data[-1] for picture in sgl.video(path, frames).pictures]

    assert shown(3) == [0, 5, 10] and shown(1) == [0] and shown(2) == [0, 10]
    assert shown(30) == list(range(11))
    monkeypatch.setitem(sys.modules, "cv2", _fake_cv2(0))
    with pytest.raises(sgl.RequestError, match="reads no frame"):
        sgl.video(path, 2)


def test_videos_need_opencv_a_file_and_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(sgl.RequestError, match="no such file"):
        sgl.video(path, 2)
    path.write_bytes(b"video")
    with pytest.raises(sgl.RequestError, match="num_frames"):
        sgl.video(path, 0)
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    with pytest.raises(sgl.RequestError, match="opencv-python-headless"):
        sgl.video(path, 2)
