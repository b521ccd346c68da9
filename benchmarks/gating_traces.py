"""Traces for the gating benchmarks: real clips, labelled by real detectors, re-encoded.

Only three clips are at hand, so streams are made of them at random offsets. Labels are what
the detectors of `shared/data` say on every frame of the clips as published; a re-encoding keeps
them frame by frame. Decode costs are measured on the encoding itself. Everything is kept under
build/gating; remove that folder to make it anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, BenchError
from triparty.device.gate.detectors import Detector
from triparty.device.gate.recording import record
from triparty.device.gate.trace_files import read_trace, write_trace
from triparty.device.gate.traces import ResultsBuilder, Task, Trace

CACHE = ROOT / "build" / "gating"
CLIPS = ("car-detection", "one-by-one-person-detection", "bottle-detection")
DETECTORS = ("yolox_nano", "FastestDet", "version-RFB-320")
LEAST_SCORE = 0.2  # kept with the labels; tasks ask for more
STEADY_FRAMES = 5  # counts are the median of so many frames: detectors flicker

PERSON, BOTTLE, TABLE, SCREEN = 0, 39, 60, 62
COUNTED = {CLIPS[0]: (), CLIPS[1]: (PERSON,), CLIPS[2]: (BOTTLE,)}  # none: of any class
SURE = {CLIPS[0]: 0.3, CLIPS[1]: 0.45, CLIPS[2]: 0.45}  # cars from above are hard to tell
USUAL = {CLIPS[0]: (), CLIPS[1]: (PERSON, SCREEN), CLIPS[2]: (BOTTLE, TABLE)}
TASKS = (
    Task("counting", "count", "value"),
    Task("event", "event", "value"),
    Task("anomaly", "anomaly", "anomaly"),
)
COUNTING = TASKS[:1]


@dataclass(frozen=True)
class Encoding:
    """How a camera might send a clip.

    Attributes:
        name: of the encoding.
        encoder: FFmpeg's name.
        suffix: of the file.
        options: of the encoder.
        rate: bits a second, or None.
        width: pixels; 0 keeps the clip's size.
        frames: only so many; 0 for all.
        says: what it stands for.
    """

    name: str
    encoder: str
    suffix: str
    options: Mapping[str, str] = field(default_factory=dict)
    rate: int | None = None
    width: int = 0
    frames: int = 0
    says: str = ""


def _x264(name: str, parameters: str, says: str, **more: object) -> Encoding:
    options = {"preset": "veryfast", "x264-params": f"threads=1:scenecut=0:{parameters}"}
    return Encoding(name, "libx264", "mp4", options, says=says, **more)  # type: ignore[arg-type]


def _steady(gop: int, kilobits: int) -> str:
    rate = f"nal-hrd=cbr:bitrate={kilobits}:vbv-maxrate={kilobits}:vbv-bufsize={kilobits}"
    return f"keyint={gop}:min-keyint={gop}:bframes=0:{rate}"


ENCODINGS = (
    _x264("gop25", "keyint=25:min-keyint=25:bframes=0:crf=26", "GOP 25, no B"),
    _x264("gop50", "keyint=50:min-keyint=50:bframes=0:crf=26", "GOP 50, no B"),
    _x264("gop25-cbr", _steady(25, 500), "GOP 25, no B, constant 500 kb/s"),
    _x264("gop50-cbr", _steady(50, 500), "GOP 50, no B, constant 500 kb/s"),
    _x264(
        "pyramid",
        "keyint=48:min-keyint=48:bframes=3:b-adapt=0:b-pyramid=normal:crf=26",
        "GOP 48, B pyramid",
    ),
    _x264(
        "free-b",
        "keyint=25:min-keyint=25:bframes=2:b-adapt=0:b-pyramid=none:crf=26",
        "GOP 25, two disposable B",
    ),
    _x264("gop300", "keyint=300:min-keyint=300:bframes=0:crf=26", "GOP 300, no B"),
    _x264(
        "starved",
        "keyint=25:min-keyint=25:bframes=0:bitrate=100:vbv-maxrate=100:vbv-bufsize=200",
        "1920x1080 at 100 kb/s",
        width=1920,
        frames=377,
    ),
    Encoding(
        "h265",
        "libx265",
        "mp4",
        {
            "preset": "ultrafast",
            "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=50:min-keyint=50:"
            "scenecut=0:open-gop=0:bframes=3:b-adapt=0:crf=28",
        },
        says="H.265, GOP 50, B",
    ),
    Encoding(
        "vp9",
        "libvpx-vp9",
        "mkv",
        {
            "deadline": "realtime",
            "cpu-used": "8",
            "crf": "34",
            "b": "0",
            "g": "50",
            "lag-in-frames": "0",
        },
        says="VP9, GOP 50",
    ),
    Encoding(
        "av1",
        "libsvtav1",
        "mkv",
        {"preset": "12", "crf": "40", "g": "50", "svtav1-params": "lp=1:pred-struct=1"},
        says="AV1, GOP 50, low delay",
    ),
    Encoding("mjpeg", "mjpeg", "mkv", {"q:v": "8"}, says="MJPEG"),
    Encoding("jpeg2000", "jpeg2000", "mkv", {"b": "4M"}, frames=377, says="JPEG 2000"),
)
BY_NAME = {one.name: one for one in ENCODINGS}


def data() -> Path:
    """The folder of clips and detectors."""
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "clips").is_dir():
        raise BenchError(f"real clips absent: {folder} (set TRIPARTY_TEST_DATA)")
    return folder


def labelled(clip: str) -> Trace:
    """The trace of a clip as published, with what every detector sees on every frame."""
    kept = CACHE / "labels" / f"{clip}.npz"
    if not kept.exists():
        _say(f"labelling {clip} with {', '.join(DETECTORS)}")
        models = data() / "models" / "detectors"
        detectors = [
            Detector(models / f"{name}.onnx", least_score=LEAST_SCORE) for name in DETECTORS
        ]
        path = data() / "clips" / f"{clip}.mp4"
        write_trace(record(path, detectors=detectors, passes=5), kept)
    return replace(read_trace(kept), tasks=())


def trace(clip: str, encoding: str = "published") -> Trace:
    """The trace of a clip in an encoding, with the answers of `TASKS` for every frame.

    Args:
        clip: one of `CLIPS`.
        encoding: `published`, or one of `ENCODINGS`.
    """
    if encoding == "published":
        return answered(labelled(clip), answers(clip))
    kept = CACHE / "traces" / f"{clip}-{encoding}.npz"
    if not kept.exists():
        path = encoded(clip, BY_NAME[encoding])
        note = f"{clip} re-encoded: {BY_NAME[encoding].says}"
        plain = record(path, camera=f"{clip}, {encoding}", note=note, passes=3)
        write_trace(answered(plain, answers(clip)), kept)
    return read_trace(kept)


def answers(clip: str) -> dict[str, NDArray[np.float32]]:
    """(frames,) for each task, in presentation order, on the clip as published."""
    found = labelled(clip).results
    rows = np.flatnonzero(found.model == labelled(clip).models.index("yolox_nano"))
    rows = rows[np.argsort(found.pts[rows])]
    counts, unusual = [], []
    for row in rows:
        span = slice(found.first[row], found.first[row + 1])
        label = found.label[span][found.score[span] >= SURE[clip]]
        counted = np.isin(label, COUNTED[clip]) if COUNTED[clip] else np.ones(len(label), bool)
        counts.append(int(counted.sum()))
        unusual.append(bool((~np.isin(label, USUAL[clip])).any()))
    count = steadied(np.array(counts, dtype=np.float32))
    odd = steadied(np.array(unusual, dtype=np.float32))
    return {"count": count, "event": (count > 0).astype(np.float32), "anomaly": odd}


def steadied(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The running median over `STEADY_FRAMES`: a detector's flicker is no event."""
    reach = STEADY_FRAMES // 2
    padded = np.pad(values, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, STEADY_FRAMES)
    return np.median(windows, axis=1).astype(np.float32)


def answered(
    plain: Trace, known: Mapping[str, NDArray[np.float32]], tasks: tuple[Task, ...] = TASKS
) -> Trace:
    """The trace with answers for its frames, given in presentation order.

    An anomaly is written as a box without a place, all else as a number.
    """
    models = tuple(known)
    results = ResultsBuilder()
    shown = np.flatnonzero(plain.packets.shown)
    ordered = shown[np.argsort(plain.packets.time[shown], kind="stable")]
    for place, packet in enumerate(ordered):
        pts = int(plain.packets.pts[packet])
        for model, name in enumerate(models):
            value = float(known[name][place])
            if name == "anomaly":
                labels = np.zeros(int(value > 0), dtype=np.int32)
                results.add(pts, model, labels=labels)
            else:
                results.add(pts, model, value=value)
    return replace(plain, models=models, tasks=tasks, results=results.build())


def encoded(clip: str, encoding: Encoding) -> Path:
    """The file of a clip in an encoding."""
    target = CACHE / "clips" / f"{clip}-{encoding.name}.{encoding.suffix}"
    if not target.exists():
        _say(f"encoding {clip}: {encoding.says}")
        with av.open(str(data() / "clips" / f"{clip}.mp4")) as source:
            rate = source.streams.video[0].average_rate or Fraction(25)
            encode(target, encoding, source.decode(video=0), Fraction(rate))
    return target


def encode(
    target: Path, encoding: Encoding, frames: Iterator[av.VideoFrame], rate: Fraction
) -> None:
    """Writes frames in an encoding; a file that is half written is never seen."""
    os.environ.setdefault("SVT_LOG", "1")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"part-{target.name}")
    with av.open(str(partial), "w") as container:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                width = encoding.width or frame.width
                height = round(width * frame.height / frame.width / 2) * 2
                stream = container.add_stream(encoding.encoder, rate=rate)
                stream.width, stream.height = width, height
                stream.pix_fmt = "yuvj420p" if encoding.encoder == "mjpeg" else "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.thread_type = "FRAME"
                stream.codec_context.options = dict(encoding.options)
            scaled = frame.reformat(stream.width, stream.height, "yuv420p")
            scaled.pts, scaled.time_base = number, 1 / rate
            scaled.pict_type = av.video.frame.PictureType.NONE
            container.mux(stream.encode(scaled))
            if number + 1 == encoding.frames:
                break
        if stream is None:
            raise BenchError(f"{target.name}: no frame to encode")
        container.mux(stream.encode())
    partial.replace(target)


def _say(text: str) -> None:
    print(f"{text} ...", file=sys.stderr, flush=True)
