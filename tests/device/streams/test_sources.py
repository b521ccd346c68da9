"""A stream goes on whatever the camera does, and says how it stands; it never shows secrets."""

from __future__ import annotations

import http.server
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from headless import KeyFlags, key_flags, until
from rtsp_server import Camera, Film, Mode, camera
from video_encodings import Encodings

from triparty.common.errors import FrameError
from triparty.device.streams.addresses import Address
from triparty.device.streams.backoff import Backoff
from triparty.device.streams.opening import Failure, Opened
from triparty.device.streams.packets import Entry, Packet, Picture
from triparty.device.streams.sources import Gap, Item, Source, SourceOptions, Ungateable
from triparty.device.streams.status import State

QUICK = SourceOptions(
    timeout_s=0.5,
    stall_s=0.4,
    backoff=Backoff(first_s=0.02, longest_s=0.1),
    ffmpeg={"analyzeduration": "200000"},
)
SECRET = "hunter22-/secret"
ENCODED = "hunter22-%2Fsecret"

Begin = Callable[..., Source]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts sources and ends them with the test."""
    begun: list[Source] = []

    def start(address: str, options: SourceOptions = QUICK, **more: object) -> Source:
        more = {"reader_of": key_flags, "origin": time.monotonic()} | more
        begun.append(Source("yard", Address.of(address), options=options, **more))  # type: ignore[arg-type]
        begun[-1].start()
        return begun[-1]

    yield start
    for source in begun:
        source.stop()
    assert all(source.join(20) for source in begun)


@pytest.fixture(scope="session")
def film(encodings: Encodings) -> Film:
    return Film.of(encodings.path("h264-baseline"))


@pytest.fixture
def yard(film: Film) -> Iterator[Camera]:
    with camera(film, speed=8) as running:
        yield running


def packets(items: list[Item]) -> list[Packet]:
    return [item for item in items if isinstance(item, Packet)]


def watched(source: Source, state: State) -> Callable[[], bool]:
    def holds() -> bool:
        source.watch()
        return source.status.state is state

    return holds


class TestFiles:
    def test_a_file_arrives_by_its_own_clock_and_ends(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        source = begin(str(encodings.path("h264-main-b")), origin=100.0)
        first = source.take(100.5, wait=True)
        assert isinstance(first[0], Opened)
        assert {p.arrival <= 100.5 for p in packets(first)} == {True}
        assert not source.finished
        rest = source.take(1e9, wait=True)
        taken = packets(first) + packets(rest)
        assert [p.number for p in taken] == list(range(60))
        assert [p.arrival for p in taken] == sorted(p.arrival for p in taken)
        assert len(packets(first)) == pytest.approx(0.5 * 25, abs=2)
        assert source.finished
        assert source.status.state is State.ENDED

    def test_it_says_whether_pictures_are_reordered(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        for name, reorders in (("h264-main-b", True), ("h264-baseline", False)):
            opened = begin(str(encodings.path(name))).take(1.0, wait=True)[0]
            assert isinstance(opened, Opened)
            assert opened.reorders is reorders

    def test_what_comes_out_is_what_ffmpeg_demuxes(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        source = begin(str(encodings.path("h264-b-pyramid")))
        taken = packets(source.take(1e12, wait=True))
        there = list(encodings.packets("h264-b-pyramid"))
        assert [bytes(p.data) for p in taken] == [bytes(p) for p in there]
        assert [p.pts for p in taken] == [p.pts for p in there]
        assert source.status.size_bytes == sum(p.size for p in there)

    def test_a_looping_file_begins_anew_and_its_time_goes_on(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        path = str(encodings.path("h264-baseline"))
        source = begin(path, replace(QUICK, loop=True), origin=0.0)
        items = [item for n in range(60) for item in source.take(n / 8, wait=True)]
        assert sum(isinstance(item, Opened) for item in items) >= 3
        times = [p.time for p in packets(items)]
        steps = [b - a for a, b in itertools.pairwise(times)]
        assert steps == pytest.approx([0.04] * len(steps))
        assert source.status.state is State.LIVE

    def test_a_file_waits_for_whoever_takes_its_packets(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        path = str(encodings.path("h264-baseline"))
        source = begin(path, replace(QUICK, hold_packets=8), origin=0.0)
        until(lambda: source.status.packets >= 8)
        assert source.status.packets <= 9
        assert len(packets(source.take(1e9, wait=True))) == 60
        assert source.status.overflows == 0

    @pytest.mark.parametrize("what", ["absent", "folder", "text", "sound"])
    def test_what_is_no_film_fails_and_says_why(
        self, what: str, begin: Begin, tmp_path: Path
    ) -> None:
        path = tmp_path / "it"
        if what == "folder":
            path.mkdir()
        elif what == "text":
            path.write_text("no film")
        elif what == "sound":
            path = tmp_path / "it.wav"
            with av.open(str(path), "w") as out:
                stream = out.add_stream("pcm_s16le", rate=8000)
                frame = av.AudioFrame(format="s16", layout="mono", samples=800)
                frame.sample_rate = 8000
                out.mux(stream.encode(frame))
        source = begin(str(path))
        until(lambda: source.finished)
        assert source.status.state is State.FAILED
        assert source.status.last_error
        assert source.status.attempts == 1

    def test_a_name_like_a_protocol_is_a_file(self, tmp_path: Path) -> None:
        assert Address.of("concat:a.mp4|b.mp4").url == "file:concat:a.mp4|b.mp4"

    def test_a_packet_that_nobody_can_read_is_a_gap(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        class Picky(KeyFlags):
            seen = 0

            def read(self, data: bytes | memoryview, keyframe: bool) -> Picture:
                Picky.seen += 1
                if Picky.seen == 5:
                    raise FrameError("no picture in it")
                return super().read(data, keyframe)

        path = str(encodings.path("h264-baseline"))
        source = begin(path, reader_of=lambda codec, extradata: Picky())
        items = source.take(1e12, wait=True)
        assert [item for item in items if isinstance(item, Gap)] == [Gap("no picture in it")]
        assert items.index(Gap("no picture in it")) == 5  # `Opened` and four packets before it
        assert [p.number for p in packets(items)] == list(range(59))
        assert (source.status.gaps, source.status.corrupt) == (1, 1)

    def test_a_stream_that_turns_out_ungateable_says_so_in_order(
        self, begin: Begin, encodings: Encodings
    ) -> None:
        class Later(KeyFlags):
            def read(self, data: bytes | memoryview, keyframe: bool) -> Picture:
                picture = super().read(data, keyframe)
                if picture.entry is not Entry.NONE and self.ungateable is None:
                    self.ungateable = "intra refresh"
                return picture

        path = str(encodings.path("h264-baseline"))
        source = begin(path, reader_of=lambda codec, extradata: Later())
        items = source.take(1e12, wait=True)
        assert items[1] == Ungateable("intra refresh")
        assert sum(isinstance(item, Ungateable) for item in items) == 1
        assert source.status.ungateable == "intra refresh"


class TestCameras:
    def test_packets_of_a_camera_arrive(self, begin: Begin, yard: Camera) -> None:
        source = begin(yard.url)
        until(lambda: source.status.packets > 30)
        items = source.take(time.monotonic())
        assert isinstance(items[0], Opened)
        assert (items[0].codec, items[0].width) == ("h264", 256)
        assert items[1].picture.entry is Entry.CLEAN  # type: ignore[union-attr]
        assert source.status.state is State.LIVE

    @pytest.mark.parametrize("digest", [True, False], ids=["digest", "basic"])
    def test_credentials_open_a_camera(self, digest: bool, begin: Begin, yard: Camera) -> None:
        yard.password, yard.digest = SECRET, digest
        source = begin(yard.url_with("admin", ENCODED))
        until(lambda: source.status.packets > 5)
        assert source.status.connections == 1

    def test_a_camera_that_hangs_up_is_opened_again_and_begins_at_an_entry(
        self, begin: Begin, yard: Camera
    ) -> None:
        yard.mode, yard.after = Mode.CLOSE, 15
        source = begin(yard.url)
        until(lambda: source.status.connections >= 3 and source.status.packets > 30)
        items = source.take(time.monotonic())
        openings = [n for n, item in enumerate(items) if isinstance(item, Opened)]
        assert len(openings) >= 3
        for opening in openings[1:]:
            assert isinstance(items[opening - 1], Gap)
        runs = [p.number for p in packets(items)]
        assert runs.count(0) == len(openings)
        times = [p.time for p in packets(items)]
        assert times[-1] > times[0]
        assert source.status.last_error

    def test_a_flapping_camera_is_tried_less_often(self, begin: Begin, yard: Camera) -> None:
        yard.mode, yard.after = Mode.CLOSE, 1
        source = begin(yard.url)
        until(lambda: source.status.attempts >= 4)
        assert source._backoff.failures >= 3

    @pytest.mark.parametrize("mode", [Mode.STALL, Mode.TRICKLE])
    def test_a_camera_that_falls_silent_is_seen_and_opened_again(
        self, mode: Mode, begin: Begin, yard: Camera
    ) -> None:
        yard.mode, yard.after = mode, 20
        # With sounds or keep-alives on the line FFmpeg's own timeout never ends it.
        source = begin(yard.url, replace(QUICK, timeout_s=5.0 if mode is Mode.TRICKLE else 2.0))
        until(watched(source, State.STALLED))
        yard.mode = Mode.OK
        until(watched(source, State.LIVE))
        assert source.status.connections >= 2
        yard.hang_up()

    def test_a_camera_that_never_answers_waits_and_is_tried_again(
        self, begin: Begin, yard: Camera
    ) -> None:
        yard.mode = Mode.SILENT
        source = begin(yard.url)
        until(lambda: source.status.attempts >= 2)
        assert source.status.connections == 0
        yard.mode = Mode.OK
        until(lambda: source.status.state is State.LIVE)

    def test_a_camera_that_refuses_comes_back(self, begin: Begin, yard: Camera) -> None:
        yard.refuse()
        source = begin(yard.url)
        until(lambda: source.status.attempts >= 3)
        assert "refused" in (source.status.last_error or "")
        yard.listen()
        until(lambda: source.status.state is State.LIVE)

    def test_wrong_credentials_are_not_tried_in_a_row(self, begin: Begin, yard: Camera) -> None:
        yard.password = SECRET
        options = replace(QUICK, backoff=Backoff(first_s=0.01, longest_s=500))
        source = begin(yard.url_with("admin", "wrong-word"), options)
        until(lambda: source.status.state is State.WAITING)
        assert "Unauthorized" in (source.status.last_error or "")
        assert source._backoff.mean_s() == 500

    def test_what_nobody_takes_is_thrown_away_whole(self, begin: Begin, yard: Camera) -> None:
        source = begin(yard.url, replace(QUICK, hold_packets=16))
        until(lambda: source.status.overflows >= 2)
        items = source.take(time.monotonic())
        assert isinstance(items[0], Opened)
        assert isinstance(items[1], Gap)
        assert len(packets(items)) <= 16


class TestSecrets:
    @pytest.mark.parametrize("fault", ["refused", "silent", "hang up", "wrong", "ok"])
    def test_credentials_are_in_no_output(
        self,
        fault: str,
        begin: Begin,
        yard: Camera,
        caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        caplog.set_level(logging.DEBUG)
        yard.password = SECRET if fault != "wrong" else "another"
        if fault == "refused":
            yard.refuse()
        yard.mode = {"silent": Mode.SILENT, "hang up": Mode.CLOSE}.get(fault, Mode.OK)
        source = begin(yard.url_with("admin", ENCODED))
        if fault == "ok":
            until(lambda: source.status.packets > 20)
        else:
            until(lambda: source.status.last_error)
        source.stop()
        seen = [repr(source), str(source.status), repr(source.address), repr(vars(source))]
        seen += [caplog.text, *capfd.readouterr(), str(threading.enumerate())]
        for text in seen:
            assert SECRET not in text
            assert ENCODED not in text
        assert "***" in source.status.address

    @pytest.mark.parametrize("kind", [ValueError, OSError, av.error.InvalidDataError])
    def test_no_exception_shows_them(self, kind: type[Exception]) -> None:
        url = f"rtsp://admin:{ENCODED}@127.0.0.1:1/x"
        words = (5, f"cannot open {url}: {SECRET}", url)
        error = kind(*words) if kind is not ValueError else ValueError(words[1])
        failure = Failure.of(error, Address.of(url))
        assert "cannot open rtsp://admin:***@127.0.0.1:1/x" in failure.text
        assert SECRET not in repr(failure)
        assert ENCODED not in repr(failure)

    def test_ffmpeg_itself_would_have_shown_them(self) -> None:
        with pytest.raises(av.error.FFmpegError) as shown:
            av.open(f"rtsp://admin:{ENCODED}@127.0.0.1:1/x", options={"timeout": "100000"})
        assert ENCODED in str(shown.value)


class _Web(http.server.BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[tuple[type[_Web], str]]:
    handler = type("Handler", (_Web,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_address[1]}/x.m3u8"
    server.shutdown()
    thread.join()
    server.server_close()


class TestWeb:
    def test_a_film_on_a_web_server_is_read(
        self, begin: Begin, web: tuple[type[_Web], str], encodings: Encodings
    ) -> None:
        handler, url = web
        handler.body = encodings.path("h264-b-transport").read_bytes()
        source = begin(url)
        until(lambda: source.status.packets >= 55)
        assert source.status.codec == "h264"

    def test_a_playlist_from_the_web_reads_no_local_file(
        self, begin: Begin, web: tuple[type[_Web], str], encodings: Encodings
    ) -> None:
        handler, url = web
        path = encodings.path("h264-b-transport")
        handler.body = (
            b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:2.4,\n"
            + b"file://"
            + str(path).encode()
            + b"\n#EXT-X-ENDLIST\n"
        )
        with av.open(url, options={"protocol_whitelist": "file,http,tcp"}) as control:
            assert sum(1 for p in control.demux() if p.size) >= 55, "the attack does not work"
        source = begin(url)
        until(lambda: source.status.last_error)
        assert source.status.packets == 0


class TestThreads:
    def test_a_stream_is_removed_while_it_connects(self, begin: Begin, yard: Camera) -> None:
        yard.mode = Mode.SILENT
        source = begin(yard.url)
        until(lambda: yard.accepted)
        source.stop()
        assert source.status.state is State.REMOVED
        assert source.take(time.monotonic()) == []
        assert source.join(20)
        assert source.status.state is State.REMOVED

    def test_a_stream_is_removed_while_it_waits(self, begin: Begin, yard: Camera) -> None:
        yard.refuse()
        source = begin(yard.url, replace(QUICK, backoff=Backoff(first_s=1000, longest_s=1000)))
        until(lambda: source.status.state is State.WAITING)
        source.stop()
        assert source.join(5)

    def test_fifty_streams_leave_no_thread_and_no_file_behind(
        self, begin: Begin, yard: Camera, encodings: Encodings
    ) -> None:
        path = str(encodings.path("h264-baseline"))

        def once(number: int) -> None:
            address = path if number % 2 else yard.url
            source = Source(
                "s", Address.of(address), reader_of=key_flags, options=QUICK, origin=0.0
            )
            source.start()
            if number % 3:
                until(lambda: source.status.packets)
            source.stop()
            assert source.join(20)

        once(0), once(1)
        until(lambda: not yard._open)
        files, threads = _open_files(), _own_threads()
        for number in range(50):
            once(number)
        until(lambda: not yard._open)
        assert _open_files() <= files
        assert _own_threads() <= threads


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _own_threads() -> int:
    return sum(t.name.startswith("stream ") for t in threading.enumerate())
