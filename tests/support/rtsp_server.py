"""A camera on loopback: RTSP with RTP over the same TCP connection (RFC 2326, 6184, 7798).

It plays a clip to whoever connects, and misbehaves on demand.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import av

MAX_PAYLOAD = 1400
CLOCK_HZ = 90_000
REALM = "camera"
NONCE = "0123456789abcdef"


class Mode(Enum):
    """What the camera does."""

    OK = "ok"
    STALL = "stall"  # sends `after` packets, then nothing, and keeps the connection
    TRICKLE = "trickle"  # the same, but sends RTCP reports, which are no pictures
    CLOSE = "close"  # sends `after` packets, then hangs up
    SILENT = "silent"  # accepts connections and never answers
    CORRUPT = "corrupt"  # from `after` on, every tenth picture is overwritten with noise


@dataclass(frozen=True)
class Picture:
    """The NAL units of one picture and its time in ticks of 90 kHz."""

    units: tuple[bytes, ...]
    ticks: int


@dataclass(frozen=True)
class Film:
    """A clip as RTP sees it: H.264 or HEVC."""

    codec: str
    parameter_sets: tuple[bytes, ...]
    pictures: tuple[Picture, ...]

    @classmethod
    def of(cls, path: Path, limit: int = 250) -> Film:
        """The first pictures of a clip in a file with length-prefixed NAL units."""
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context.name
            extradata = stream.codec_context.extradata or b""
            sets = _h264_sets(extradata) if codec == "h264" else _hevc_sets(extradata)
            size = (extradata[4 if codec == "h264" else 21] & 3) + 1
            pictures = []
            for packet in container.demux(stream):
                if packet.size and len(pictures) < limit:
                    ticks = round(float((packet.pts or 0) * packet.time_base) * CLOCK_HZ)
                    pictures.append(Picture(tuple(_units(bytes(packet), size)), ticks))
        return cls(codec, sets, tuple(pictures))

    @property
    def step(self) -> int:
        """Ticks between two pictures."""
        ticks = sorted(picture.ticks for picture in self.pictures)
        return (ticks[-1] - ticks[0]) // (len(ticks) - 1)

    def sdp(self) -> str:
        """What DESCRIBE answers."""
        sets = [base64.b64encode(each).decode() for each in self.parameter_sets]
        if self.codec == "h264":
            form = f"packetization-mode=1;sprop-parameter-sets={','.join(sets)}"
        else:
            names = ("sprop-vps", "sprop-sps", "sprop-pps")
            form = ";".join(f"{name}={value}" for name, value in zip(names, sets, strict=True))
        name = {"h264": "H264", "hevc": "H265"}[self.codec]
        lines = [
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=camera",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            "m=video 0 RTP/AVP 96",
            f"a=rtpmap:96 {name}/{CLOCK_HZ}",
            f"a=fmtp:96 {form}",
            "a=control:track0",
        ]
        return "\r\n".join(lines) + "\r\n"


class Camera:
    """The server. `mode`, `after` and `password` may be changed while it runs."""

    def __init__(self, film: Film, *, speed: float = 1.0) -> None:
        self.film = film
        self.speed = speed  # of playing, in times of the clip's own
        self.mode = Mode.OK
        self.after = 20
        self.user = "admin"
        self.password: str | None = None
        self.digest = True
        self.accepted = 0
        self.refused_logins = 0
        self._listener: socket.socket | None = None
        self._port = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._stop = threading.Event()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/live"

    def url_with(self, user: str, password: str) -> str:
        return f"rtsp://{user}:{password}@127.0.0.1:{self._port}/live"

    def listen(self) -> None:
        """Accepts connections, on the port that it had before."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        self._listener.settimeout(0.05)
        self._begin(self._accept, self._listener)

    def refuse(self) -> None:
        """Hangs up on everybody and accepts no connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Ends all connections."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stop.set()
        self.refuse()
        for thread in self._threads:
            thread.join(5)

    def _begin(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stop.is_set() and self._listener is listener:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            self.accepted += 1
            self._open.add(connection)
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        playing = threading.Event()
        lock = threading.Lock()
        try:
            buffer = b""
            while not self._stop.is_set():
                data = connection.recv(65536)
                if not data:
                    return
                if self.mode is Mode.SILENT:
                    continue
                buffer += data
                while buffer:
                    if buffer[:1] == b"$":  # RTCP of the receiver
                        if len(buffer) < 4:
                            break
                        length = 4 + struct.unpack(">H", buffer[2:4])[0]
                        if len(buffer) < length:
                            break
                        buffer = buffer[length:]
                        continue
                    head, found, buffer_rest = buffer.partition(b"\r\n\r\n")
                    if not found:
                        break
                    buffer = buffer_rest
                    method = self._answer(connection, head.decode(), lock)
                    if method == "PLAY" and not playing.is_set():
                        playing.set()
                        self._begin(self._play, connection, lock)
                    if method == "TEARDOWN":
                        return
        except OSError:
            pass
        finally:
            self._open.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, head: str, lock: threading.Lock) -> str:
        method, url, *_ = head.split()
        headers = dict(re.findall(r"(?m)^([\w-]+): *(.*?)\r?$", head))
        answer = [f"CSeq: {headers.get('CSeq', '0')}", "Session: 1234"]
        body = ""
        status = "200 OK"
        if method != "OPTIONS" and not self._may(method, headers.get("Authorization", "")):
            status = "401 Unauthorized"
            self.refused_logins += "Authorization" in headers
            digest = f'Digest realm="{REALM}", nonce="{NONCE}"'
            basic = f'Basic realm="{REALM}"'
            answer.append(f"WWW-Authenticate: {digest if self.digest else basic}")
        elif method == "OPTIONS":
            answer.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            body = self.film.sdp()
            answer += [f"Content-Base: {url}/", "Content-Type: application/sdp"]
        elif method == "SETUP":
            answer.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        answer.append(f"Content-Length: {len(body)}")
        with lock:
            text = f"RTSP/1.0 {status}\r\n" + "\r\n".join(answer) + "\r\n\r\n" + body
            connection.sendall(text.encode())
        return method if status.startswith("200") else "REFUSED"

    def _may(self, method: str, authorization: str) -> bool:
        if self.password is None:
            return True
        if not self.digest:
            pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
            return authorization == f"Basic {pair}"
        given = dict(re.findall(r'(\w+)="([^"]*)"', authorization))
        first = _md5(f"{self.user}:{REALM}:{self.password}")
        second = _md5(f"{method}:{given.get('uri', '')}")
        return given.get("response") == _md5(f"{first}:{NONCE}:{second}")

    def _play(self, connection: socket.socket, lock: threading.Lock) -> None:
        sequence = 0
        began = time.monotonic()
        sent = 0
        lap = 0
        length = self.film.step * len(self.film.pictures)
        try:
            while not self._stop.is_set():
                for picture in self.film.pictures:
                    if sent >= self.after and self.mode is Mode.CLOSE:
                        connection.shutdown(socket.SHUT_RDWR)
                        return
                    if sent >= self.after and self.mode in (Mode.STALL, Mode.TRICKLE):
                        self._be_quiet(connection, lock)
                        return
                    ticks = picture.ticks + lap * length
                    wait_s = sent * self.film.step / CLOCK_HZ / self.speed
                    if self._stop.wait(max(0.0, began + wait_s - time.monotonic())):
                        return
                    units = picture.units
                    if self.mode is Mode.CORRUPT and sent >= self.after and sent % 10 == 0:
                        units = tuple(b"\x65" + bytes(len(unit)) for unit in units)
                    for index, unit in enumerate(units):
                        last = index == len(units) - 1
                        for payload, mark in self._payloads(unit, last=last):
                            header = struct.pack(
                                ">BBHII",
                                0x80,
                                96 | (0x80 if mark else 0),
                                sequence & 0xFFFF,
                                ticks & 0xFFFFFFFF,
                                1,
                            )
                            sequence += 1
                            _interleave(connection, lock, 0, header + payload)
                    sent += 1
                lap += 1
        except OSError:
            pass

    def _be_quiet(self, connection: socket.socket, lock: threading.Lock) -> None:
        while not self._stop.wait(0.1):
            if self.mode is Mode.TRICKLE:
                report = struct.pack(">BBHIQIII", 0x80, 200, 6, 1, 0, 0, 0, 0)
                _interleave(connection, lock, 1, report)
            elif connection.fileno() < 0:
                return

    def _payloads(self, unit: bytes, *, last: bool) -> Iterator[tuple[bytes, bool]]:
        """RTP payloads of a NAL unit, and whether each ends the picture."""
        if len(unit) <= MAX_PAYLOAD:
            yield unit, last
            return
        if self.film.codec == "h264":  # FU-A
            kind, skip = unit[0] & 0x1F, 1
            head = bytes([unit[0] & 0xE0 | 28])
        else:
            kind, skip = (unit[0] >> 1) & 0x3F, 2
            head = bytes([unit[0] & 0x81 | 49 << 1, unit[1]])
        body = unit[skip:]
        for start in range(0, len(body), MAX_PAYLOAD):
            end = start + MAX_PAYLOAD >= len(body)
            flags = (0x80 if start == 0 else 0) | (0x40 if end else 0)
            part = body[start : start + MAX_PAYLOAD]
            yield head + bytes([flags | kind]) + part, last and end


@contextmanager
def camera(film: Film, *, speed: float = 1.0) -> Iterator[Camera]:
    """A camera that listens until the block ends."""
    running = Camera(film, speed=speed)
    running.listen()
    try:
        yield running
    finally:
        running.close()


def _interleave(
    connection: socket.socket, lock: threading.Lock, channel: int, data: bytes
) -> None:
    with lock:
        connection.sendall(struct.pack(">cBH", b"$", channel, len(data)) + data)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def _units(data: bytes, size: int) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        yield data[at + size : at + size + length]
        at += size + length


def _h264_sets(extradata: bytes) -> tuple[bytes, ...]:
    found, at = [], 6
    for count in (extradata[5] & 31, None):
        if count is None:
            count, at = extradata[at], at + 1
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            found.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
    return tuple(found)


def _hevc_sets(extradata: bytes) -> tuple[bytes, ...]:
    """The first VPS, SPS and PPS of an hvcC record."""
    sets: dict[int, bytes] = {}
    at = 23
    for _ in range(extradata[22]):
        kind, count = extradata[at] & 0x3F, int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            sets.setdefault(kind, extradata[at + 2 : at + 2 + length])
            at += 2 + length
    return sets[32], sets[33], sets[34]
