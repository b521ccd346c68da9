"""Streams without entries in the whole loop: decoded whole, exactly, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
from packet_graphs import entry, packet, trailing
from video_encodings import Encodings
from watched import Witness, gateway, settings_of, whole

from triparty.device.gateway import camera, decoding
from triparty.device.gateway.metrics import FIGURES
from triparty.device.gateway.settings import CameraSettings
from triparty.device.gateway.status import GatewayStatus, document
from triparty.device.streams.closure import Closures
from triparty.device.streams.reachability import Bound

BOUND = 20


def watched(path: Path, folder: Path, *, entry_wait_s: float) -> tuple[GatewayStatus, Witness]:
    settings = settings_of(
        folder,
        {"a": path},
        gate={"budget_ms": 1.0},
        defaults={"looks_per_s": 240, "entry_wait_s": entry_wait_s},
    )
    witness = Witness()
    with gateway(settings, stages=[witness], policy="keyframes") as running:
        running.run()
        return running.status, witness


def test_a_stream_that_refreshes_without_saying_so_is_decoded_whole_and_exactly(
    encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "CLOSURE_PACKETS", BOUND)
    path = encodings.path("h265-intra-refresh")
    status, witness = watched(path, tmp_path, entry_wait_s=0.5)
    (one,) = status.cameras
    assert one.whole
    assert "no entry for 1 s" in one.whole
    assert one.whole in str(document(status))
    assert next(f for f in FIGURES if f.name == "ungateable").of(one) == 1
    assert one.decoded == one.arrived == 60
    assert one.failures == 0
    shown = [pixels for *_, pixels in witness.frames]
    assert len(shown) == 60
    assert set(shown) <= set(whole(path).values())


def test_of_a_long_backlog_the_last_frames_are_shown(
    encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "CLOSURE_PACKETS", BOUND)
    monkeypatch.setattr(decoding, "MOST_FRAMES", 4)
    path = encodings.path("h265-intra-refresh")
    status, witness = watched(path, tmp_path, entry_wait_s=0.5)
    assert status.cameras[0].decoded == 60
    assert len(witness.frames) == 1 + 4 + 60 - BOUND - 1  # the entry, the last ones, the rest


@pytest.mark.parametrize(
    ("name", "bound", "entry_wait_s"),
    [("h264-long", 1500, 0.5), ("h265-closed", BOUND, 0.2), ("h265-intra-refresh", BOUND, 9)],
)
def test_what_has_entries_or_is_held_or_is_young_stays_gated(
    name: str,
    bound: int,
    entry_wait_s: float,
    encodings: Encodings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(camera, "CLOSURE_PACKETS", bound)
    status, _ = watched(encodings.path(name), tmp_path, entry_wait_s=entry_wait_s)
    assert status.cameras[0].whole is None
    assert status.cameras[0].decoded < status.cameras[0].arrived / 2


def test_an_entry_after_all_lets_the_stream_be_gated_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(camera, "CLOSURE_PACKETS", BOUND)
    settings = CameraSettings(name="a", url="a.mp4", entry_wait_s=0.5)
    watched = camera.Camera(
        key=0,
        row=0,
        settings=settings,
        source=None,  # type: ignore[arg-type]
        worker=0,
        asked=(),
        tasks=(),
        questions=(),
        added=0.0,
        ring_s=1.0,
        debounces={},
    )
    watched.closures = Closures(Bound(packets=BOUND))
    begun, states = [], []
    for number, picture in enumerate([*[entry(), *[trailing()] * 29] * 2]):
        here = packet(number, picture)
        begun += [number] if watched.expect(here) else []
        watched.add(here, 1.0)
        states.append(watched.whole is not None)
        if watched.whole is not None:
            watched.closures.decoded([number])
    assert begun == [BOUND, 30 + BOUND]
    assert states == ([False] * BOUND + [True] * (30 - BOUND)) * 2
    assert watched.closures.held_packets <= BOUND
    watched.decode_whole("headers say so")
    assert not watched.expect(packet(60, entry()))
    assert watched.whole == "headers say so"
