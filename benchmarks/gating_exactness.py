"""Exactness of gated decoding: frames that differ from those of a full decode, or never come.

Cases for the suite `gating`. A frame counts against us if it was asked for and not refused
beforehand, and did not come out, or if one of its samples differs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks.harness import ROOT, BenchError, Case, Effort, case
from tests.support.gated_decoding import (
    DENSITIES,
    Stream,
    full_decode,
    gated_decode,
    open_stream,
    random_gate,
)
from tests.support.video_encodings import ENCODINGS, Encodings

CLIPS = ("bottle-detection", "car-detection", "one-by-one-person-detection")
CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg", "jpeg2000")
REFERENCE = "a reference that is missing shows in 4 of 5 streams: 26-47 dB, or no frame at all"


def clips_folder() -> Path:
    """The folder of the real clips of the test data."""
    data = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    folder = data / "clips"
    if not folder.is_dir():
        raise BenchError(f"{folder} is absent: set TRIPARTY_TEST_DATA")
    return folder


@cache
def _encodings() -> tuple[Encodings, tempfile.TemporaryDirectory[str]]:
    folder = tempfile.TemporaryDirectory()
    return Encodings(clips_folder(), Path(folder.name)), folder


def _streams(codec: str) -> Iterator[Stream]:
    for encoding in ENCODINGS:
        if encoding.codec == codec:
            yield open_stream(_encodings()[0].path(encoding.name))


def _wrong(stream: Stream, gates: int) -> int:
    """Frames that differ or never came, over random gates of several densities."""
    full = full_decode(stream)
    wrong = 0
    for seed in range(gates):
        density = DENSITIES[seed % len(DENSITIES)]
        outcome = gated_decode(stream, random_gate(seed, density, len(stream.packets)))
        wrong += len(outcome.differing(full)) + len(outcome.lost) + outcome.failures
    return wrong


def _of_codec(codec: str) -> Case:
    count = sum(encoding.codec == codec for encoding in ENCODINGS)

    @case(
        f"frames that differ from full decoding or never come, {codec} ({count} streams)",
        unit="frames",
        better="lower",
        target=0,
        reference=REFERENCE,
    )
    def wrong(effort: Effort) -> Iterator[float]:
        gates = 5 if effort.quick else 200
        yield float(sum(_wrong(stream, gates) for stream in _streams(codec)))

    return wrong


@case(
    "frames that differ from full decoding or never come, real clips",
    unit="frames",
    better="lower",
    target=0,
    reference=REFERENCE,
)
def clips_exact(effort: Effort) -> Iterator[float]:
    """The clips as their cameras encoded them."""
    names = CLIPS[1:2] if effort.quick else CLIPS
    streams = (open_stream(clips_folder() / f"{name}.mp4") for name in names)
    yield float(sum(_wrong(stream, 2 if effort.quick else 20) for stream in streams))


@case(
    "streams that cannot be gated and are not refused, or the other way round",
    unit="streams",
    better="lower",
    target=0,
)
def named(effort: Effort) -> Iterator[float]:
    """Over all test encodings; those that cannot be gated are decoded whole."""
    opened = [open_stream(_encodings()[0].path(one.name)) for one in ENCODINGS]
    yield float(
        sum(
            (stream.whole_from is not None) is not encoding.ungateable
            for stream, encoding in zip(opened, ENCODINGS, strict=True)
        )
    )


EXACTNESS = (*(_of_codec(codec) for codec in CODECS), clips_exact, named)
"""The cases, for the suite."""
