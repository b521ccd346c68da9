"""A codec whose headers nobody reads here: decoded whole."""

from __future__ import annotations

from triparty.device.streams.bits import Data
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.packets import Entry, Picture, PictureType


class Unknown:
    """A stream of which only the container's key flag is known.

    Args:
        codec: its name.

    Attributes:
        ungateable: says that the codec is not known.
    """

    def __init__(self, codec: str) -> None:
        """Names the codec."""
        self.ungateable: str | None = f"codec '{codec}': its headers cannot be read here"

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """A picture that others may need; the container says where decoding may start."""
        if keyframe:
            return picture(PictureType.I, True, Entry.CLEAN)
        return picture(PictureType.P, True)
