"""Generated nights: a clip as a camera would send it with little light.

Luma is darkened, colours fade, the sensor's noise rises, and the picture is encoded anew as by
day; noise costs bits, so sizes mean something else than they did. What is there stays there:
the answers are those of the clip by day, not what a detector would still see. It is named as
generated wherever it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_traces import BY_NAME, CACHE, CLIPS, answered, answers, data, encode
from triparty.device.gate.recording import record
from triparty.device.gate.trace_files import read_trace, write_trace
from triparty.device.gate.traces import Trace

LIGHT = 0.25  # of luma by day
COLOUR = 0.3  # of what chroma differs from grey
NOISE = 5.0  # standard deviation of luma
FRAMES = 400  # at most, of a clip
_GREY = 128.0


def night(clip: str, encoding: str) -> Trace:
    """The trace of a clip by night, in an encoding."""
    kept = CACHE / "traces" / f"night-{clip}-{encoding}.npz"
    if not kept.exists():
        form = replace(BY_NAME[encoding], frames=FRAMES)
        target = CACHE / "clips" / f"night-{clip}-{encoding}.{form.suffix}"
        if not target.exists():
            print(f"generating a night of {clip} ...", flush=True)
            with av.open(str(data() / "clips" / f"{clip}.mp4")) as source:
                rate = Fraction(source.streams.video[0].average_rate or 25)
                encode(target, form, _frames(clip, source.decode(video=0)), rate)
        plain = record(
            target,
            camera=f"night {clip}, {encoding}",
            note=f"generated night of {clip}: {form.says}",
            passes=2,
        )
        write_trace(answered(plain, answers(clip)), kept)
    return read_trace(kept)


def _frames(clip: str, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    rng = np.random.default_rng(300 + CLIPS.index(clip))
    for frame in frames:
        planes = frame.reformat(format="yuv420p").to_ndarray()
        yield av.VideoFrame.from_ndarray(darkened(planes, frame.height, rng), format="yuv420p")


def darkened(
    planes: NDArray[np.uint8], height: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A picture with little light.

    Args:
        planes: (height * 3 / 2, width) luma above both chroma planes.
        height: of luma.
        rng: of the noise.
    """
    dark = planes.astype(np.float32)
    luma, chroma = dark[:height], dark[height:]
    noise = rng.standard_normal(luma.shape, dtype=np.float32) * NOISE
    dark[:height] = luma * LIGHT + noise
    dark[height:] = _GREY + (chroma - _GREY) * COLOUR
    return np.clip(dark, 0, 255).astype(np.uint8)
