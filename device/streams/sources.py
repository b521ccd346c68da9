"""A stream of compressed packets: opened, read, opened again, by one thread of its own.

What comes out is in the order of what happened: `Opened` (begins numbers and stamps anew),
`Packet`, `Gap` (pictures are missing: only an entry continues), `Ungateable`. A file ends; a
camera never does: every end of its stream is a disconnect, whatever FFmpeg calls it, and is
followed by a wait (`backoff.py`) and another try. Nothing that happens to a stream raises; its
`Status` says it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import TYPE_CHECKING, Protocol

from triparty.common.errors import TripartyError
from triparty.device.streams.addresses import Address
from triparty.device.streams.backoff import Backoff
from triparty.device.streams.opening import Failure, Opened, describe, open_container
from triparty.device.streams.packets import Entry, Packet, Picture, PictureType
from triparty.device.streams.status import FINAL, State, Status
from triparty.device.streams.timeline import Timeline

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet as AvPacket
    from av.stream import Stream

    Demuxed = AvPacket[Stream]

log = logging.getLogger(__name__)


class Reader(Protocol):
    """What reads the headers of a stream's packets; `Typer` is one."""

    @property
    def ungateable(self) -> str | None:
        """Why the stream must be decoded whole, as far as is known."""

    def read(self, data: bytes | memoryview, keyframe: bool) -> Picture:
        """What the headers of a packet say."""


ReaderOf = Callable[[str, bytes | None], Reader]
"""Makes the reader of a stream, from codec and extradata; `Typer.of` is one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Pictures are missing: what follows cannot be decoded before the next entry.

    Attributes:
        reason: why.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Ungateable:
    """From here on the stream must be decoded whole.

    Attributes:
        reason: why.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """A packet that is not used; it is counted, and nobody else hears of it."""


Item = Opened | Packet | Gap | Ungateable
"""What a stream gives out."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a stream is read.

    Attributes:
        loop: begin a file anew at its end.
        timeout_s: of each wait for the network; FFmpeg's own.
        stall_s: without a picture for so long, a camera is called stalled; after twice that,
            its connection is given up.
        backoff: between tries.
        hold_packets: that nobody took yet; a file waits at this bound, a camera's are lost.
        hold_bytes: the same in bytes.
        ffmpeg: further options for FFmpeg.
    """

    loop: bool = False
    timeout_s: float = 5.0
    stall_s: float = 10.0
    backoff: Backoff = field(default_factory=Backoff)
    hold_packets: int = 256
    hold_bytes: int = 64 << 20
    ffmpeg: Mapping[str, str] = field(default_factory=dict)


class Source:
    """A stream and the thread that owns it.

    Args:
        name: of the camera.
        address: where it comes from.
        reader_of: makes the reader of its packets' headers.
        options: how it is read.
        origin: what `now` is at its beginning. A camera's arrivals are on the clock `clock`; a
            file's packets arrive at `origin` plus their own decoding time.
        clock: monotonic, in seconds.
        rng: for jitter.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        reader_of: ReaderOf,
        options: SourceOptions | None = None,
        origin: float,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        """Does nothing yet; `start` does."""
        self.name = name
        self.address = address
        self._options = options or SourceOptions()
        # A mistake in the options must be told to whoever made it, not to a thread.
        address.options(timeout_s=self._options.timeout_s, more=self._options.ffmpeg)
        self._reader_of = reader_of
        self._origin = origin
        self._clock = clock
        self._rng = rng or Random()  # noqa: S311  jitter is no secret
        self._backoff = self._options.backoff
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._held_packets = 0
        self._held_bytes = 0
        self._status = Status(name, str(address), State.CONNECTING, clock())
        # What every packet changes; the rest of the status changes seldom.
        self._packets = 0
        self._size_bytes = 0
        self._last_packet: float | None = None
        self._time_s = 0.0
        self._owner = 0
        self._threads: list[threading.Thread] = []

    def __repr__(self) -> str:
        """Without credentials."""
        return f"Source({self.name!r}, {self.address})"

    def start(self) -> None:
        """Begins to read, in a thread."""
        if self.address.warning:
            log.warning("camera %s: %s", self.name, self.address.warning)
        self._begin_thread()

    @property
    def status(self) -> Status:
        """What is known of it now."""
        with self._changed:
            return replace(
                self._status,
                packets=self._packets,
                size_bytes=self._size_bytes,
                last_packet=self._last_packet,
            )

    def take(self, now: float, *, wait: bool = False) -> list[Item]:
        """What has arrived until `now` and was not taken yet, in order.

        Args:
            now: on the clock of `origin`.
            wait: for a file, until all that arrives until `now` was read.
        """
        taken: list[Item] = []
        with self._changed:
            while True:
                self._pop_due(now, taken)
                self._changed.notify_all()
                over = self._items or self._status.state in FINAL or self.address.live
                if over or not wait:
                    return taken
                self._changed.wait(0.2)

    @property
    def finished(self) -> bool:
        """Whether nothing will come any more, and all that came was taken."""
        with self._changed:
            return self._status.state in FINAL and not self._items

    def watch(self) -> None:
        """Sees whether a camera went silent; to be called now and then.

        FFmpeg's timeout does not end a connection on which something else than pictures comes
        (sound, keep-alives). Such a connection is left to its thread, which ends when it wakes,
        and another is made; never more than one is left at a time.
        """
        if not self.address.live:
            return
        now = self._clock()
        with self._changed:
            state, waited_s = self._status.state, now - self._status.since
            if state is State.LIVE and self._last_packet is not None:
                silent_s = now - self._last_packet
                if silent_s > self._options.stall_s:
                    self._set(State.STALLED, f"no picture for {silent_s:.0f} s")
                return
            patience_s = {
                State.STALLED: self._options.stall_s,
                State.CONNECTING: 4 * self._options.timeout_s + self._options.stall_s,
            }.get(state, inf)
            if waited_s <= patience_s or self._left_behind():
                return
            self._owner += 1
            self._fail(Failure("the camera keeps the connection and sends no picture"))
        self._begin_thread(wait=True)

    def stop(self) -> None:
        """Ends it: nothing is given out any more, its thread ends as soon as FFmpeg lets it."""
        with self._changed:
            self._owner += 1
            self._items.clear()
            self._held_packets = self._held_bytes = 0
            self._set(State.REMOVED)
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Waits for its threads; returns whether all have ended."""
        end = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _begin_thread(self, *, wait: bool = False) -> None:
        with self._changed:
            thread = threading.Thread(
                target=self._run,
                args=(self._owner, wait),
                name=f"stream {self.name}",
                daemon=True,
            )
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def _left_behind(self) -> bool:
        return sum(thread.is_alive() for thread in self._threads) > 1

    def _run(self, me: int, wait: bool) -> None:
        """Reads the stream as often as it takes; `me` is outdated when another took over."""
        while True:
            if wait and not self._pause(me):
                return
            wait = True
            with self._changed:
                if self._owner != me:
                    return
                attempts = self._status.attempts + 1
                self._status = replace(self._status, attempts=attempts)
                if self._status.state is not State.LIVE:  # as a file is that begins anew
                    self._set(State.CONNECTING)
            failure = self._attempt(me)
            with self._changed:
                if self._owner != me:
                    return
                if failure is None and not self.address.live:
                    if self._options.loop:
                        wait = False
                        continue
                    self._set(State.ENDED)
                    return
                self._fail(failure or Failure("the camera closed the connection"))
                if self._status.state is State.FAILED:
                    return

    def _attempt(self, me: int) -> Failure | None:
        """Opens and reads to the end; returns what went wrong, if anything did."""
        try:
            container = open_container(
                self.address, timeout_s=self._options.timeout_s, options=self._options.ffmpeg
            )
            with container:
                self._demux(me, container)
        except Exception as error:  # noqa: BLE001  a stream must not end the others
            return Failure.of(error, self.address)
        return None

    def _demux(self, me: int, container: InputContainer) -> None:
        stream = container.streams.video[0]
        opened = describe(stream)
        reader = self._reader_of(opened.codec, opened.extradata)
        connection = _Connection(reader, self._timeline(opened), self._stamp)
        with self._changed:
            if self._owner != me:
                return
            self._status = replace(
                self._status,
                connections=self._status.connections + 1,
                codec=opened.codec,
                width=opened.width,
                height=opened.height,
                ungateable=reader.ungateable,
            )
            self._items.append(replace(opened, ungateable=reader.ungateable))
            self._changed.notify_all()
        # All streams, so that this loop turns on a camera that sends sound alone.
        for packet in container.demux():
            if self._owner != me:
                return
            if packet.stream_index != stream.index or not packet.size:
                continue  # sound, or FFmpeg's mark of the end
            for item in connection.receive(packet):
                if not self._put(me, item):
                    return
        if not self.address.live:
            self._time_s = connection.timeline.latest_s + connection.timeline.step_s

    def _timeline(self, opened: Opened) -> Timeline:
        begin_s = self._clock() - self._origin if self.address.live else self._time_s
        return Timeline(float(opened.time_base), begin_s)

    def _stamp(self, decode_s: float) -> float:
        """When a packet arrives that is decoded at `decode_s` of a file's time."""
        return self._clock() if self.address.live else self._origin + decode_s

    def _put(self, me: int, item: Item | Damaged) -> bool:
        """Holds an item until it is taken; returns whether to go on."""
        with self._changed:
            while self._owner == me and not self.address.live and self._full():
                self._changed.wait()
            if self._owner != me:
                return False
            if self._full():
                self._overflow()
            self._note(item)
            if not isinstance(item, Damaged):
                self._items.append(item)
            self._changed.notify_all()
        return True

    def _note(self, item: Item | Damaged) -> None:
        if isinstance(item, Packet):
            self._held_packets += 1
            self._held_bytes += item.size
            self._packets += 1
            self._size_bytes += item.size
            self._last_packet = self._clock()
            if self._status.state is not State.LIVE:
                self._set(State.LIVE)
        elif isinstance(item, Gap):
            self._status = replace(self._status, gaps=self._status.gaps + 1)
        elif isinstance(item, Ungateable):
            self._status = replace(self._status, ungateable=item.reason)
        elif isinstance(item, Damaged):
            self._status = replace(self._status, corrupt=self._status.corrupt + 1)

    def _full(self) -> bool:
        return (
            self._held_packets >= self._options.hold_packets
            or self._held_bytes >= self._options.hold_bytes
        )

    def _overflow(self) -> None:
        """Throws away packets that nobody took; what else happened is kept."""
        self._items = deque(item for item in self._items if not isinstance(item, Packet))
        self._held_packets = self._held_bytes = 0
        self._items.append(Gap("packets came faster than they were taken"))
        self._status = replace(
            self._status, gaps=self._status.gaps + 1, overflows=self._status.overflows + 1
        )

    def _pop_due(self, now: float, taken: list[Item]) -> None:
        while self._items:
            item = self._items[0]
            if isinstance(item, Packet):
                if item.arrival > now:
                    return
                self._held_packets -= 1
                self._held_bytes -= item.size
            taken.append(self._items.popleft())

    def _fail(self, failure: Failure) -> None:
        """After an attempt: waits to try again, or gives up."""
        now = self._clock()
        if self._status.state in (State.LIVE, State.STALLED):
            self._items.append(Gap(failure.text))
            self._backoff = self._backoff.held(now - self._status.since)
        self._backoff = self._backoff.failed(refused=failure.refused)
        self._set(State.FAILED if failure.final else State.WAITING, failure.text)
        log.warning("camera %s (%s): %s", self.name, self.address, failure.text)

    def _pause(self, me: int) -> bool:
        """Waits before the next try; returns whether there is one to be made."""
        with self._changed:
            wait_s = self._backoff.wait_s(self._rng)
            return not self._changed.wait_for(lambda: self._owner != me, timeout=wait_s)

    def _set(self, state: State, error: str | None = None) -> None:
        self._status = replace(
            self._status,
            state=state,
            since=self._clock(),
            last_error=error or self._status.last_error,
        )
        self._changed.notify_all()


class _Connection:
    """Makes packets of what FFmpeg demuxes from one connection."""

    def __init__(
        self, reader: Reader, timeline: Timeline, stamp: Callable[[float], float]
    ) -> None:
        self.timeline = timeline
        self._reader = reader
        self._stamp = stamp
        self._number = 0
        self._ungateable = reader.ungateable
        self._first_dts: int | None = None
        self._first_s = self._decode_s = timeline.latest_s

    def receive(self, packet: Demuxed) -> list[Item | Damaged]:
        """The items of one packet: itself, or the gap that it leaves."""
        picture, reason = self._picture(packet)
        if picture is None or packet.is_corrupt:
            if picture is not None and not picture.reference:
                return [Damaged()]  # nobody refers to it
            return [Damaged(), Gap(reason or "a packet was damaged on its way")]
        items: list[Item | Damaged] = []
        if self._reader.ungateable != self._ungateable and self._reader.ungateable:
            self._ungateable = self._reader.ungateable
            items.append(Ungateable(self._ungateable))
        return [*items, self._packet(packet, picture)]

    def _picture(self, packet: Demuxed) -> tuple[Picture | None, str | None]:
        try:
            picture = self._reader.read(memoryview(packet), packet.is_keyframe)
        except TripartyError as error:
            if self._reader.ungateable is None:
                return None, error.message
            # Decoded whole, so nothing depends on what its headers say.
            key = packet.is_keyframe
            kind = PictureType.I if key else PictureType.P
            return Picture(kind, True, Entry.CLEAN if key else Entry.NONE), None
        # FFmpeg's decoder swallows what an edit list of the container cuts away.
        return (replace(picture, shown=False) if packet.is_discard else picture), None

    def _packet(self, packet: Demuxed, picture: Picture) -> Packet:
        pts, time_s = self.timeline.place(
            packet.pts, packet.dts, entry=picture.entry is not Entry.NONE
        )
        number = self._number
        self._number += 1
        return Packet(
            number=number,
            size=packet.size,
            pts=pts,
            time=time_s,
            arrival=self._stamp(self._decoded_at(packet, time_s)),
            picture=picture,
            data=packet,
        )

    def _decoded_at(self, packet: Demuxed, time_s: float) -> float:
        """When a file's packet is due, in its own time; never earlier than the one before."""
        if packet.dts is None:
            due_s = time_s
        else:
            if self._first_dts is None:
                self._first_dts = packet.dts
            tick_s = float(packet.time_base or 1)
            due_s = self._first_s + (packet.dts - self._first_dts) * tick_s
        self._decode_s = max(self._decode_s, due_s)
        return self._decode_s
