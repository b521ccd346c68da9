"""Codecs whose every picture stands by itself: JPEG in motion, and JPEG 2000."""

from __future__ import annotations

from triparty.common.errors import PacketError
from triparty.device.streams.bits import Data
from triparty.device.streams.headers.picture import picture
from triparty.device.streams.packets import Entry, Picture, PictureType

BEGINNING = b"\xff\xd8"
QUANTISERS, CODES, SCAN = 0xDB, 0xC4, 0xDA
MAX_SEGMENTS = 256  # before the first scan
ABBREVIATED = "abbreviated pictures: their tables come from earlier ones"
CODESTREAM, FILE = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "

ALONE = picture(PictureType.I, False, Entry.CLEAN, False, 0, None, 0, 0)


class MotionJpeg:
    """The headers of one stream of JPEG pictures.

    Args:
        extradata: not needed.

    Attributes:
        ungateable: that pictures leave out their tables, once one does.
    """

    def __init__(self, extradata: bytes | None = None) -> None:
        """Has seen no picture."""
        self.ungateable: str | None = None
        self._had_codes = False

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say.

        Args:
            data: the packet.
            keyframe: the container's flag, not needed.

        Raises:
            PacketError: no JPEG picture, or one that ends before its first scan.
        """
        segments = segment_types(data)
        had_codes, self._had_codes = self._had_codes, CODES in segments
        if QUANTISERS not in segments or (had_codes and not self._had_codes):
            self.ungateable = ABBREVIATED
        return ALONE


class Jpeg2000:
    """The headers of one stream of JPEG 2000 pictures.

    Args:
        extradata: not needed.

    Attributes:
        ungateable: None.
    """

    def __init__(self, extradata: bytes | None = None) -> None:
        """Has nothing to keep."""
        self.ungateable: str | None = None

    def read(self, data: Data, keyframe: bool = False) -> Picture:
        """What the headers of a packet say.

        Args:
            data: the packet.
            keyframe: the container's flag, not needed.

        Raises:
            PacketError: no JPEG 2000 picture.
        """
        if data[:4] != CODESTREAM and data[:8] != FILE:
            raise PacketError("a packet does not begin as JPEG 2000 does: it is damaged")
        return ALONE


def segment_types(data: Data) -> set[int]:
    """The marker codes of the segments before the first scan (ITU-T T.81, annex B).

    Raises:
        PacketError: no JPEG picture, or no scan.
    """
    if data[:2] != BEGINNING:
        raise PacketError("a packet does not begin as JPEG does: it is damaged")
    found: set[int] = set()
    at, size = 2, len(data)
    for _ in range(MAX_SEGMENTS):
        if at + 4 > size or data[at] != 255:
            break
        code = data[at + 1]
        if code == SCAN:
            return found
        if code == 255:  # a fill byte
            at += 1
            continue
        found.add(code)
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise PacketError("a JPEG picture has no scan: the packet is damaged or cut")
