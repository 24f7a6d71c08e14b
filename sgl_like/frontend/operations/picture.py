"""Images: put into the prompt at once, if the backend's model can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sgl_like.errors import RequestError
from sgl_like.frontend.backend.base import Picture
from sgl_like.frontend.operations.base import Operation

if TYPE_CHECKING:
    from sgl_like.frontend.interpreter import Interpreter

__all__ = ["AppendPictures"]

PLACE = "<image>"
"""Stands for an image in the text of a state."""


class AppendPictures(Operation):
    """Add images, one after the other."""

    def __init__(self, label: str, pictures: Sequence[Picture]) -> None:
        super().__init__(label)
        self._pictures = pictures

    def start(self, at: Interpreter) -> bool:
        """See `Operation.start`."""
        backend = at.context.backend
        if not backend.supports_images:
            raise RequestError(
                f"{type(backend).__name__} ({backend.model_name}) takes text only; images need a backend whose model"
                " can see them"
            )
        for picture in self._pictures:
            at.emit(at.prompt.append_picture(picture, PLACE))
        return True
