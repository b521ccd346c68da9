"""A compressed packet of a stream, and what its headers say before anything is decoded.

Everything here is in decode order: the order in which packets arrive. Only results are
compared in presentation order (`Packet.time`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class PictureType(IntEnum):
    """How a picture is predicted, by its first slice; the letter does not say who needs it."""

    I = 1  # noqa: E741 - the field's own letter
    P = 2
    B = 3


class Entry(IntEnum):
    """Whether decoding may start at a packet.

    `CLEAN`: everything that follows decodes (IDR, BLA, a keyframe that clears the references).
    `OPEN`: decoding may start here, but the leading pictures that follow are withheld, because
    they refer to pictures before it (CRA, a recovery-point I picture).
    """

    NONE = 0
    OPEN = 1
    CLEAN = 2


@dataclass(frozen=True, slots=True)
class Picture:
    """What the headers of one packet say of its picture.

    Attributes:
        type: of the first slice; a packet with several pictures (VP9 superframe, AV1 temporal
            unit) has the type of the one that is shown.
        reference: whether others may refer to it (`nal_ref_idc`, sub-layer reference, slots
            written). A picture that is not a reference can be left out without loss for others.
        entry: whether decoding may start here.
        leading: precedes the last `OPEN` entry in presentation order and needs pictures before
            it; exact only if decoding went on through that entry.
        temporal_id: temporal sub-layer, 0 where the codec has none.
        slice_qp: quantiser of the first slice, None where it is not cheap to read.
        reads: reference slots read, as a bit mask; None where the headers do not say, and
            every earlier reference picture since the entry may be needed. Bits above the
            codec's slots stand for what else it keeps from picture to picture: VP9's saved
            probability contexts, and its previous picture (motion vectors, segmentation,
            filter deltas), which every picture writes and most read.
        writes: reference slots written, as a bit mask; None where the headers do not say.
            A picture with no bits here is needed by nobody.
        shown: whether the decoder outputs a frame for this packet.
    """

    type: PictureType
    reference: bool
    entry: Entry = Entry.NONE
    leading: bool = False
    temporal_id: int = 0
    slice_qp: int | None = None
    reads: int | None = None
    writes: int | None = None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of one stream.

    Attributes:
        number: place in decode order since the stream was opened, from 0 without gaps.
        size: compressed bytes.
        pts: presentation stamp in the stream's own ticks, unique within a stream between two
            entries; how a decoded frame finds its packet.
        time: presentation time in seconds on the stream's clock.
        arrival: when it arrived, in seconds of a monotonic clock.
        picture: what its headers say.
        data: the demuxer's packet (`av.Packet`), or None in a trace.
    """

    number: int
    size: int
    pts: int
    time: float
    arrival: float
    picture: Picture
    data: Any = None
