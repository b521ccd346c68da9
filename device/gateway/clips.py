"""Clips of events: packets copied into a file as they came, nothing decoded or encoded."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import av

from triparty.common.files import PRIVATE_MODE
from triparty.device.streams.opening import TEMPLATE_FORMAT, Opened
from triparty.device.streams.packets import Packet

CLIPS: Final = "*.m[pk][4v]"
"""Pattern of their names."""

IN_MP4 = frozenset({"h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg"})
"""Codecs that every player finds in MP4; others go into Matroska."""


@dataclass
class Recording:
    """A clip that is being gathered.

    Attributes:
        opened: the connection that its packets are of.
        packets: so far; the first is an entry.
        until: time of the stream at which it ends.
        limit_bytes: at which it ends in any case.
        path: where it will be.
    """

    opened: Opened
    packets: list[Packet]
    until: float
    limit_bytes: int
    path: Path
    size_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        """Counts what it begins with."""
        self.size_bytes = sum(packet.size for packet in self.packets)

    def add(self, packet: Packet) -> bool:
        """Takes in the next packet; returns whether the clip is complete."""
        if packet.time > self.until or self.size_bytes + packet.size > self.limit_bytes:
            return True
        self.packets.append(packet)
        self.size_bytes += packet.size
        return False


def suffix_for(codec: str) -> str:
    """The ending of a clip's file name."""
    return ".mp4" if codec in IN_MP4 else ".mkv"


def write_clip(path: Path, opened: Opened, packets: Sequence[Packet]) -> None:
    """Writes packets into a file; whole or not at all, mode 0600.

    Args:
        path: as `suffix_for` has it.
        opened: the connection that they are of.
        packets: in decode order, the first an entry, without leading pictures of it.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE_MODE))
    try:
        _mux(partial, opened, packets)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _mux(path: Path, opened: Opened, packets: Sequence[Packet]) -> None:
    container = "mp4" if suffix_for(opened.codec) == ".mp4" else "matroska"
    stamps = _stamps(opened, packets)
    # The header of some codecs is complete only with a picture: FFmpeg reads it from the first.
    first = io.BytesIO()
    _copy(opened, opened.template, packets[:1], stamps[:1], first, TEMPLATE_FORMAT)
    _copy(opened, first.getvalue(), packets, stamps, str(path), container)


def _copy(
    opened: Opened,
    template: bytes,
    packets: Sequence[Packet],
    stamps: Sequence[Stamp],
    target: Any,
    container: str,
) -> None:
    with (
        av.open(io.BytesIO(template), format=TEMPLATE_FORMAT) as described,
        av.open(target, "w", format=container) as output,
    ):
        stream = output.add_stream_from_template(described.streams.video[0], opaque=True)
        stream.time_base = opened.time_base
        for packet, stamp in zip(packets, stamps, strict=True):
            # A packet of its own: the one of the stream may be in a decoder's hands.
            copy: av.Packet[Any] = av.Packet(bytes(packet.data))
            copy.pts, copy.dts, copy.duration = stamp
            copy.time_base = opened.time_base
            copy.is_keyframe = packet.data.is_keyframe
            copy.stream = stream
            output.mux(copy)


class Stamp(NamedTuple):
    """When a packet is shown and decoded, and for how long, in ticks."""

    pts: int
    dts: int
    duration: int


def _stamps(opened: Opened, packets: Sequence[Packet]) -> list[Stamp]:
    """Stamps from 0 on; those of decoding rise and never pass those of showing."""
    tick_s = float(opened.time_base)
    shown = [round((packet.time - packets[0].time) / tick_s) for packet in packets]
    rising: list[int] = []
    for stamp in sorted(shown):
        rising.append(max(stamp, rising[-1] + 1) if rising else stamp)
    delay = max(decode - show for decode, show in zip(rising, shown, strict=True))
    first = rising[0] - delay
    usual = max(1, round(1 / (opened.rate * tick_s)))
    steps = [after - before for before, after in pairwise(rising)] + [usual]
    return [
        Stamp(show - first, decode - delay - first, step)
        for show, decode, step in zip(shown, rising, steps, strict=True)
    ]


def prune(folder: Path, pattern: str, limit_bytes: int, oldest: float) -> int:
    """Deletes files that are too old or too many, the oldest first; returns how many.

    Args:
        folder: of clips or snapshots.
        pattern: of their names; nothing else in the folder is touched.
        limit_bytes: most bytes of all of them together.
        oldest: modification time before which one is deleted.
    """
    found = []
    for path in folder.glob(pattern):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found.append((state.st_mtime, state.st_size, path))
    total, gone = sum(size for _, size, _ in found), 0
    for changed, size, path in sorted(found):
        if total <= limit_bytes and changed >= oldest:
            break
        path.unlink(missing_ok=True)
        total, gone = total - size, gone + 1
    return gone
