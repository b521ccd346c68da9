"""`StreamDecoder`: decodes closures of one stream, and says which packet each frame is of.

Frames come out in presentation order, so with B pictures later than their packets: a few
packets later, or when decoding starts anew at an entry, or at `drain`. Each packet carries a
stamp through the decoder, by which its frame is known even where presentation times are missing
or repeated. In the middle of a group the decoder is never drained, for that loses references.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from av.codec.codec import UnknownCodecError
from av.codec.context import CodecContext, ThreadType
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from triparty.common.errors import DecodeError
from triparty.device.streams.packets import Packet
from triparty.device.streams.reachability import Closure

PREFERRED_DECODERS = {"av1": "libdav1d"}  # FFmpeg's own needs an accelerator
USUAL_REORDERING = 2
"""Pictures by which H.264 with a pyramid of B pictures is late; longer ones say so."""
MAX_DELAY = 64
"""Packets whose frames may be outstanding; no codec reorders over more."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame.

    Attributes:
        number: of its packet.
        pts: of its packet, in the stream's ticks.
        time: presentation time in seconds.
        target: whether it was asked for; the others come with a target that needs them.
        image: the pixels.
    """

    number: int
    pts: int
    time: float
    target: bool
    image: VideoFrame


@dataclass(frozen=True, slots=True)
class Spent:
    """What decoding one packet cost.

    Attributes:
        packet: fed to the decoder.
        cpu_ms: of the decoder's thread.
    """

    packet: Packet
    cpu_ms: float


@dataclass(slots=True)
class DecoderCounters:
    """What one decoder did.

    Attributes:
        fed: packets.
        frames: handed out.
        restarts: starts anew at an entry.
        rebuilds: new contexts after the first.
        failures: packets that it failed on.
        corrupt: frames that the decoder patched up, not handed out.
        surplus: frames beyond the first of a packet, not handed out.
        missing: frames that never came, though their packets promised one.
    """

    fed: int = 0
    frames: int = 0
    restarts: int = 0
    rebuilds: int = 0
    failures: int = 0
    corrupt: int = 0
    surplus: int = 0
    missing: int = 0


class _Stamp:
    """Goes with a packet through the decoder; a new one each time, for PyAV knows it by id."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class StreamDecoder:
    """The decoder of one stream. The thread that decodes first owns it.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: what the container holds before the packets, or None.
        reorders: whether the container knows that pictures come out in another order than they
            go in. Some H.264 does not say how far, and FFmpeg, which then learns it from what
            it sees, loses a few of the first frames.

    Raises:
        DecodeError: there is no decoder for the codec.
    """

    def __init__(self, codec: str, extradata: bytes | None, *, reorders: bool = False) -> None:
        """Opens nothing before the first packet."""
        self.counters = DecoderCounters()
        self.cpu_ms = 0.0
        self.spent: list[Spent] = []
        self._context = _open(codec, extradata, reorders)
        self._owner: int | None = None
        self._lap_began_ns = 0
        self._has_failed = False
        self._fed: dict[int, tuple[Packet, bool, bool]] = {}
        self._ready: list[Frame] = []

    def decode(
        self, closure: Closure, also: Callable[[Packet], bool] | None = None
    ) -> list[Frame]:
        """Decodes a closure; returns the frames that come out now, of this or earlier ones.

        `spent` then holds what each of its packets cost.

        Args:
            closure: to be decoded.
            also: for which packets beside the target the frame is handed out too; for none if
                it is absent. A frame that is kept costs memory (3 MB at 1080p) and the time to
                get that memory, so a long closure should hand out few.

        Raises:
            DecodeError: the decoder failed on a packet, or patched up a picture that others
                need; `extra` has the number of the packet that was fed last. Nothing can be
                decoded before the next entry (`Closures.failed`). Frames that were ready come
                with the next call.
        """
        self._begin()
        self.spent = []
        if closure.restart or (self._has_failed and closure.packets[0].picture.entry):
            self._restart()
        for packet in closure:
            is_target = packet is closure.target and not closure.part
            self._feed(packet, is_target, is_target or (also is not None and also(packet)))
        return self._take()

    def drain(self) -> list[Frame]:
        """The frames that are left; for the end of a stream, or before it is left for long.

        Decoding goes on at an entry only.
        """
        self._begin()
        self._restart()
        return self._take()

    def reopen(
        self, codec: str, extradata: bytes | None, *, reorders: bool = False
    ) -> list[Frame]:
        """Goes on with another connection, at an entry; returns the frames that are left.

        The context is a new one, also for the same parameters: FFmpeg keeps room for as many
        frames as were ever held of one context at once.
        """
        frames = self.drain()
        self._context = _open(codec, extradata, reorders)
        self.counters.rebuilds += 1
        return frames

    def _feed(self, packet: Packet, is_target: bool, is_wanted: bool) -> None:
        if packet.picture.shown:
            self._fed[packet.number] = (packet, is_target, is_wanted)
            if len(self._fed) > MAX_DELAY:
                del self._fed[next(iter(self._fed))]
                self.counters.missing += 1
        self.counters.fed += 1
        demuxed = packet.data
        demuxed.opaque = _Stamp(packet.number)
        try:
            images = self._context.decode(demuxed)
        except FFmpegError as error:
            self._fed.pop(packet.number, None)
            raise self._failure(packet, str(error.strerror)) from error
        finally:
            demuxed.opaque = None
            self.spent.append(Spent(packet, self._lap()))
        if self._accept(images):
            raise self._failure(packet, "a picture that others need was damaged")

    def _failure(self, packet: Packet, reason: str) -> DecodeError:
        self.counters.failures += 1
        self._has_failed = True
        return DecodeError(
            f"packet {packet.number} ({packet.size} bytes) cannot be decoded: {reason}; "
            "decoding waits for the next entry",
            number=packet.number,
        )

    def _accept(self, images: Iterable[VideoFrame]) -> bool:
        """Takes in what came out; returns whether a picture that others need was damaged."""
        is_damaged = False
        for image in images:
            stamp = image.opaque
            known = self._fed.pop(stamp.number, None) if isinstance(stamp, _Stamp) else None
            if known is None:
                self.counters.surplus += 1
                continue
            packet, is_target, is_wanted = known
            if image.is_corrupt:
                self.counters.corrupt += 1
                is_damaged = is_damaged or packet.picture.reference
                continue
            if not is_wanted:
                continue
            self.counters.frames += 1
            self._ready.append(Frame(packet.number, packet.pts, packet.time, is_target, image))
        return is_damaged

    def _restart(self) -> None:
        """Takes out the frames that are left, and forgets all references."""
        self._has_failed = False
        if not self._context.is_open or not self.counters.fed:
            return
        try:
            self._accept(self._context.decode(None))
        except FFmpegError:
            self.counters.failures += 1
        self._context.flush_buffers()
        self._lap()
        self.counters.restarts += 1
        self.counters.missing += len(self._fed)
        self._fed.clear()

    def _take(self) -> list[Frame]:
        ready, self._ready = self._ready, []
        return ready

    def _lap(self) -> float:
        """Adds the CPU time since the last lap; returns it in ms."""
        now = time.thread_time_ns()
        cpu_ms = (now - self._lap_began_ns) / 1e6
        self._lap_began_ns = now
        self.cpu_ms += cpu_ms
        return cpu_ms

    def _begin(self) -> None:
        """Checks whose thread this is, and starts its clock."""
        me = threading.get_ident()
        if self._owner is None:
            self._owner = me
        if self._owner != me:
            raise RuntimeError(
                f"a decoder belongs to one thread, {self._owner}, got {me}: FFmpeg would crash"
            )
        self._lap_began_ns = time.thread_time_ns()


def _open(codec: str, extradata: bytes | None, reorders: bool) -> VideoCodecContext:
    try:
        context = CodecContext.create(PREFERRED_DECODERS.get(codec, codec), "r")
    except UnknownCodecError:
        context = None
    if not isinstance(context, VideoCodecContext):
        raise DecodeError(f"this FFmpeg has no video decoder for the codec '{codec}'")
    if extradata:
        context.extradata = extradata
    context.thread_count = 1
    context.thread_type = ThreadType.NONE
    context.copy_opaque = True
    if reorders and codec == "h264":
        context.options = {"has_b_frames": str(USUAL_REORDERING)}
    return context
