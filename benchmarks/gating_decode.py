"""What gated decoding saves in real CPU time, and how well its cost is foretold.

Cases for the suite `gating`. All time is CPU time of the process: demuxing, typing, closures
and decoding on one side, demuxing and decoding on the other. The 1080p streams are real clips
scaled up, so their content is softer than a camera's; both sides get the same stream.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import av
import numpy as np

from benchmarks.gating_exactness import clips_folder
from benchmarks.harness import Case, Effort, case
from tests.support.gated_decoding import Stream, open_stream
from tests.support.video_encodings import BY_NAME, Encoding, encode
from triparty.device.streams.budget import TokenBucket
from triparty.device.streams.closure import Closures
from triparty.device.streams.cost import CostModel
from triparty.device.streams.decoder import StreamDecoder
from triparty.device.streams.packets import Packet, PictureType
from triparty.device.streams.reachability import Closure
from triparty.device.streams.typer import Typer

RATE = 25
GOP = 50
Gate = Callable[[int], bool]

THESIS_STREAMS = "thesis table 2.3: 2.1 to 4.8 times the streams at 90 % accuracy"


def _camera(frames: int) -> Encoding:
    """A 1080p camera at 4 Mb/s: no B pictures, a group of two seconds."""
    parameters = f"threads=1:keyint={GOP}:min-keyint={GOP}:scenecut=0:bframes=0"
    rate = "nal-hrd=cbr:bitrate=4000:vbv-maxrate=4000:vbv-bufsize=4000"
    options = {"preset": "veryfast", "x264-params": f"{parameters}:{rate}"}
    return Encoding(
        "camera-1080p", "libx264", "mp4", options, "car-detection", 150, frames, 1920, 1080
    )


def _large(name: str, frames: int) -> Encoding:
    """One of the test encodings at 1080p."""
    encoding = BY_NAME[name]
    more = {"jpeg2000": {"b": "80M"}, "mpeg4-b": {"b": "6M"}}.get(name, {})
    return replace(
        encoding,
        name=f"{name}-1080p",
        options={**encoding.options, **more},
        width=1920,
        height=1080,
        frames=min(frames, encoding.frames),
    )


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _file(name: str, frames: int) -> Path:
    encoding = _camera(frames) if name == "camera" else _large(name, frames)
    target = Path(_folder().name) / f"{frames}-{encoding.filename}"
    encode(encoding, clips_folder(), target)
    return target


def _frames(effort: Effort) -> int:
    return GOP if effort.quick else 4 * GOP


def camera_file(effort: Effort) -> Path:
    """The film of a 1080p camera."""
    return _file("camera", _frames(effort))


class _Path:
    """The whole path of one gated stream from its file."""

    def __init__(self, file: Path, gate: Gate) -> None:
        """Opens the file."""
        self._container = av.open(file)
        stream = self._container.streams.video[0]
        self._gate = gate
        codec = stream.codec_context.codec.canonical_name
        self._typer = Typer.of(codec, stream.codec_context.extradata)
        self._closures = Closures()
        self._decoder = StreamDecoder(codec, stream.codec_context.extradata)
        self._packets = enumerate(one for one in self._container.demux(stream) if one.size)

    def step(self) -> bool:
        """One packet; returns whether there was one."""
        number, demuxed = next(self._packets, (0, None))
        if demuxed is None:
            self._decoder.drain()
            self._container.close()
            return False
        picture = self._typer.read(memoryview(demuxed), demuxed.is_keyframe)
        self._closures.add(Packet(number, demuxed.size, number, 0.0, 0.0, picture, demuxed))
        if self._gate(number):
            answer = self._closures.closure(number)
            if isinstance(answer, Closure):
                self._decoder.decode(answer)
                self._closures.decoded([one.number for one in answer])
        return True


class _FullPath:
    """The same file, demuxed and decoded and nothing else."""

    def __init__(self, file: Path) -> None:
        """Opens the file."""
        self._container = av.open(file)
        stream = self._container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        self._packets = self._container.demux(stream)

    def step(self) -> bool:
        """One packet; returns whether there was one."""
        demuxed = next(self._packets, None)
        if demuxed is None:
            self._container.close()
            return False
        demuxed.decode()
        return True


def _cpu_s(file: Path, gate: Gate | None, streams: int = 1) -> float:
    """CPU seconds of so many streams side by side, packet by packet in turn."""
    paths = [_FullPath(file) if gate is None else _Path(file, gate) for _ in range(streams)]
    start = time.process_time()
    while paths:
        paths = [path for path in paths if path.step()]
    return time.process_time() - start


def _keyframes(number: int) -> bool:
    return number % GOP == 0


def _start_of_groups(share: float) -> Gate:
    """The first pictures of every group: nothing is decoded only to reach something else."""
    return lambda number: number % GOP < share * GOP


def _scattered(share: float) -> Gate:
    """Single pictures at random: most of what is before them is decoded with them."""
    drawn = np.random.default_rng(0).random(100_000) < share
    return lambda number: bool(drawn[number])


def _whole_groups(share: float) -> Gate:
    """Every n-th group, whole."""
    every = round(1 / share)
    return lambda number: number // GOP % every == 0


GATES: tuple[tuple[str, Gate], ...] = (
    ("keyframes only (2 % of frames)", _keyframes),
    ("start of every group, 10 % of frames", _start_of_groups(0.1)),
    ("start of every group, 25 % of frames", _start_of_groups(0.25)),
    ("start of every group, 50 % of frames", _start_of_groups(0.5)),
    ("every 4th group, 25 % of frames", _whole_groups(0.25)),
    ("scattered, 2 % of frames", _scattered(0.02)),
    ("scattered, 10 % of frames", _scattered(0.1)),
    ("all frames", lambda number: True),
)


def _saved(title: str, gate: Gate) -> Case:
    @case(
        f"CPU saved against full decoding, 1080p H.264 GOP {GOP}, {title}",
        unit="share",
        better="higher",
        reference="thesis table 2.3: 52.0-79.3 % saved at 90 % accuracy",
    )
    def saved(effort: Effort) -> Iterator[float]:
        file = camera_file(effort)
        for _ in range(effort.runs):
            yield 1 - _cpu_s(file, gate) / _cpu_s(file, None)

    return saved


def _served(title: str, gate: Gate | None) -> Case:
    @case(
        f"1080p25 H.264 streams that one core serves, {title}",
        unit="streams",
        better="higher",
        reference=THESIS_STREAMS,
    )
    def served(effort: Effort) -> Iterator[float]:
        frames, streams = _frames(effort), 2 if effort.quick else 8
        file = _file("camera", frames)
        for _ in range(2 if effort.quick else 3):
            yield streams * frames / RATE / _cpu_s(file, gate, streams)

    return served


FITTED = ("h264-main-b", "h264-cbr-50", "h265-closed", "h265-raw", "vp9-altref", "av1", "mpeg4")


@cache
def _measured(name: str, frames: int) -> tuple[Stream, np.ndarray]:
    """A stream and the CPU ms of each of its packets."""
    stream = open_stream(_file(name, frames))
    decoder = StreamDecoder(stream.codec, stream.extradata)
    ms = []
    for packet in stream.packets:
        decoder.decode(Closure((packet,)))
        ms.append(decoder.spent[0].cpu_ms)
    return stream, np.array(ms)


def _line_apart(stream: Stream, ms: np.ndarray) -> np.ndarray:
    return _learnt(stream, ms, apart=True)


def _one_line(stream: Stream, ms: np.ndarray) -> np.ndarray:
    return _learnt(stream, ms, apart=False)


def _learnt(stream: Stream, ms: np.ndarray, *, apart: bool) -> np.ndarray:
    sizes = np.array([one.size for one in stream.packets])
    intra = _types(stream) == PictureType.I if apart else np.zeros(len(sizes), np.bool_)
    model = CostModel()
    model.learn(stream.codec, 1920, 1080, sizes, intra, ms)
    return model.estimate(stream.codec, 1920, 1080, sizes, intra)


def _constants(stream: Stream, ms: np.ndarray) -> np.ndarray:
    types = _types(stream)
    return np.array([ms[types == one].mean() for one in types])


def _types(stream: Stream) -> np.ndarray:
    return np.array([one.picture.type for one in stream.packets])


def _explained(title: str, fit: Callable[[Stream, np.ndarray], np.ndarray]) -> Case:
    @case(
        f"decode time explained by {title}, R2 over {len(FITTED)} streams at 1080p",
        unit="R2",
        better="higher",
        reference="thesis 2.5.1: a constant per type, 2.9 P for an I",
    )
    def explained(effort: Effort) -> Iterator[float]:
        names: Sequence[str] = FITTED[:2] if effort.quick else FITTED
        for name in names:
            stream, ms = _measured(name, 60)
            yield 1 - float(np.var(ms - fit(stream, ms)) / np.var(ms))

    return explained


@case(
    "measured CPU against its budget over 60 s of rounds, 8 streams",
    unit="share off",
    better="lower",
    target=0.05,
    reference="the budget is CPU ms a round; estimates are settled by measured cost",
)
def kept(effort: Effort) -> Iterator[float]:
    """Real decoding of real clips, more of it wanted than the budget allows."""
    for seed in range(2 if effort.quick else 5):
        granted, measured = _run_budget(250 if effort.quick else 1500, seed)
        yield abs(measured / granted - 1)


def _run_budget(rounds: int, seed: int) -> tuple[float, float]:
    """Granted and measured CPU ms; one packet a stream and round, wanted in random order."""
    rng = np.random.default_rng(seed)
    clips = [open_stream(clips_folder() / f"{name}.mp4") for name in ("car-detection",) * 2]
    model, bucket = CostModel(), TokenBucket(1.5)
    live = [(clips[n % 2], Closures(), _decoder(clips[n % 2])) for n in range(8)]
    measured = 0.0
    for number in range(rounds):
        bucket.begin_round()
        for stream, closures, _ in live:
            packet = _looped(stream, number)
            intra = packet.picture.type == PictureType.I
            cost = model.estimate(stream.codec, 768, 432, packet.size, intra)
            closures.add(packet, float(cost))
        for row in rng.permutation(len(live)):
            stream, closures, decoder = live[row]
            cost_ms = closures.cost(number)
            answer = closures.closure(number)
            if cost_ms is None or not isinstance(answer, Closure):
                continue
            if not bucket.admits(cost_ms):
                continue
            bucket.charge(cost_ms)
            before = decoder.cpu_ms
            decoder.decode(answer)
            closures.decoded([one.number for one in answer])
            bucket.settle(cost_ms, decoder.cpu_ms - before)
            measured += decoder.cpu_ms - before
            model.learn(
                stream.codec,
                768,
                432,
                [one.packet.size for one in decoder.spent],
                [one.packet.picture.type == PictureType.I for one in decoder.spent],
                [one.cpu_ms for one in decoder.spent],
            )
    return bucket.counters.granted - bucket.counters.lapsed, measured


def _decoder(stream: Stream) -> StreamDecoder:
    return StreamDecoder(stream.codec, stream.extradata)


def _looped(stream: Stream, number: int) -> Packet:
    packet = stream.packets[number % len(stream.packets)]
    return replace(packet, number=number)


DECODE = (
    *(_saved(title, gate) for title, gate in GATES),
    _served("full decoding", None),
    _served("keyframes only", _keyframes),
    _served("start of every group, 25 % of frames", _start_of_groups(0.25)),
    _served("scattered, 2 % of frames", _scattered(0.02)),
    _explained("bytes, intra and other pictures apart", _line_apart),
    _explained("bytes, one line", _one_line),
    _explained("a constant per picture type", _constants),
    kept,
)
"""The cases, for the suite."""
