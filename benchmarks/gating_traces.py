"""Traces for the gating benchmarks: real clips, labelled by real detectors, and re-encoded.

Only three clips are at hand, so streams are made of them at random offsets. Labels are what the
detectors of `shared/data` say on every frame of the clips as published; a re-encoding keeps them
frame by frame. Everything is kept under build/gating.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from triparty.device.gate.detectors import Detector
from triparty.device.gate.recording import record
from triparty.device.gate.trace_files import read_trace, write_trace
from triparty.device.gate.traces import Trace

from benchmarks.harness import ROOT, BenchError

CACHE = ROOT / "build" / "gating"
CLIPS = ("car-detection", "one-by-one-person-detection", "bottle-detection")
DETECTORS = ("yolox_nano", "FastestDet", "version-RFB-320")
LEAST_SCORE = 0.2  # kept in the trace; tasks ask for more


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
        print(f"labelling {clip} with {', '.join(DETECTORS)} ...", file=sys.stderr, flush=True)
        models = data() / "models" / "detectors"
        detectors = [
            Detector(models / f"{name}.onnx", least_score=LEAST_SCORE) for name in DETECTORS
        ]
        write_trace(record(data() / "clips" / f"{clip}.mp4", detectors=detectors, passes=5), kept)
    trace = read_trace(kept)
    return replace(trace, tasks=())
