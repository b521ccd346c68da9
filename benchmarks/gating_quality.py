"""Generated quality drops: clips that are poor for some seconds, as when an uplink fails.

The task of the thesis's super-resolution: which frames have lost quality. In spells, drawn at
random, a clip's frames are taken from a poor re-encoding of it, and the whole is encoded once
more as a camera would. Which frames are poor is known by construction, not seen by a model;
wherever figures of this are shown they are called generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_traces import (
    BY_NAME,
    CACHE,
    CLIPS,
    Encoding,
    answered,
    data,
    encode,
    encoded,
)
from triparty.device.gate.recording import record
from triparty.device.gate.trace_files import read_trace, write_trace
from triparty.device.gate.traces import Task, Trace

QUALITY = Task("quality", "quality", "value")
GOOD_S, POOR_S = 6.0, 3.0  # mean length of a spell
POOR = Encoding(
    "poor",
    "libx264",
    "mp4",
    {"preset": "veryfast", "x264-params": "threads=1:scenecut=0:keyint=250:crf=45"},
    width=192,
    says="a quarter of the width, quantised coarsely",
)


def dropped(clip: str, encoding: str) -> Trace:
    """The trace of a clip with quality drops, in an encoding."""
    kept = CACHE / "traces" / f"dropped-{clip}-{encoding}.npz"
    if not kept.exists():
        target = CACHE / "clips" / f"dropped-{clip}-{encoding}.{BY_NAME[encoding].suffix}"
        poor = _spells(clip)
        if not target.exists():
            print(f"generating quality drops of {clip} ...", flush=True)
            encode(target, BY_NAME[encoding], _frames(clip, poor), _rate(clip))
        plain = record(
            target,
            camera=f"dropped {clip}, {encoding}",
            note=f"generated quality drops of {clip}: {BY_NAME[encoding].says}",
            passes=2,
        )
        known = {"quality": poor.astype(np.float32)}
        write_trace(answered(plain, known, (QUALITY,)), kept)
    return read_trace(kept)


def _rate(clip: str) -> Fraction:
    with av.open(str(data() / "clips" / f"{clip}.mp4")) as source:
        return Fraction(source.streams.video[0].average_rate or 25)


def _spells(clip: str) -> NDArray[np.bool_]:
    """(frames,) whether each frame is poor."""
    with av.open(str(data() / "clips" / f"{clip}.mp4")) as source:
        count = sum(1 for _ in source.decode(video=0))
    rng = np.random.default_rng(200 + CLIPS.index(clip))
    fps = float(_rate(clip))
    poor = np.zeros(count, dtype=np.bool_)
    at = 0
    while at < count:
        at += 1 + int(rng.exponential(GOOD_S) * fps)
        end = at + 1 + int(rng.exponential(POOR_S) * fps)
        poor[at:end] = True
        at = end
    return poor


def _frames(clip: str, poor: NDArray[np.bool_]) -> Iterator[av.VideoFrame]:
    """The clip's frames, each as it is or as its poor re-encoding shows it."""
    paths = (data() / "clips" / f"{clip}.mp4", encoded(clip, POOR))
    with av.open(str(paths[0])) as good, av.open(str(paths[1])) as bad:
        pairs = zip(good.decode(video=0), bad.decode(video=0), poor.tolist(), strict=True)
        for whole, small, is_poor in pairs:
            yield small.reformat(whole.width, whole.height) if is_poor else whole
