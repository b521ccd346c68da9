"""The whole loop on real clips: exact frames, a kept budget, and nothing that ends it."""

from __future__ import annotations

import itertools
import math
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from headless import until
from rtsp_server import Camera as FakeCamera
from rtsp_server import Film, Mode, camera
from video_encodings import ENCODINGS, Encodings
from watched import Kept, Witness, gateway, settings_of, whole

from triparty.common.errors import SettingsError
from triparty.device.gate.detectors import Detections
from triparty.device.gate.trace_files import read_trace
from triparty.device.gateway.clock import WallClock
from triparty.device.gateway.frames import StreamFrame
from triparty.device.gateway.gateway import Gateway
from triparty.device.gateway.stages import Seen, Verdict
from triparty.device.streams.status import State

GATED = [one.name for one in ENCODINGS if not one.ungateable]
LIVE: dict[str, Any] = {
    "timeout_s": 1.0,
    "stall_s": 0.5,
    "retry_s": 0.05,
    "retry_longest_s": 0.2,
    "ffmpeg": {"analyzeduration": "200000"},
}


def brightness(frame: StreamFrame) -> Seen:
    return float(frame.luma().mean())


def test_frames_of_a_gated_stream_are_those_of_a_full_decode(
    encodings: Encodings, tmp_path: Path
) -> None:
    names = [n for n in GATED if "raw" not in n and n != "h264-slices"]
    paths = {name: encodings.path(name) for name in names}
    for policy, budget_ms in (("random", 3.0), ("feedback_only", 6.0)):
        witness = Witness(say=brightness)
        settings = settings_of(
            tmp_path,
            dict(paths),
            gate={"budget_ms": budget_ms},
            tasks=[{"name": "light", "model": "model", "measure": "value"}],
        )
        with gateway(settings, stages=[witness], policy=policy) as running:
            running.run()
            status = running.status
        share = sum(c.decoded for c in status.cameras) / sum(c.arrived for c in status.cameras)
        assert 0.02 < share < 0.95, "the budget gates nothing, or all"
        seen = dict.fromkeys(names, 0)
        for name, pts, _, pixels in witness.frames:
            seen[name] += 1
            assert pixels == whole(paths[name])[pts], f"{policy}: {name} differs at {pts}"
        assert sum(count > 0 for count in seen.values()) > len(names) // 2


def test_an_ungateable_stream_is_decoded_whole_and_named(
    encodings: Encodings, tmp_path: Path
) -> None:
    path = encodings.path("h264-intra-refresh")
    witness = Witness()
    settings = settings_of(
        tmp_path,
        {"old": path, "new": encodings.path("h264-baseline")},
        gate={"budget_ms": 0.2},
        defaults={"looks_per_s": 240},
    )
    with gateway(settings, stages=[witness]) as running:
        running.run()
        old, new = running.status.cameras
    assert old.whole
    assert old.decoded == old.arrived == 60
    assert new.whole is None
    assert new.decoded < new.arrived
    frames = {pts: pixels for name, pts, _, pixels in witness.frames if name == "old"}
    assert frames.items() <= whole(path).items()
    assert len(frames) > 36  # a group went by before the stream gave itself away


def test_models_see_a_whole_stream_no_oftener_than_configured(
    encodings: Encodings, tmp_path: Path
) -> None:
    witness = Witness()
    camera = {"url": str(encodings.path("h264-baseline")), "whole": True, "looks_per_s": 5}
    with gateway(settings_of(tmp_path, {"a": camera}), stages=[witness]) as running:
        running.run()
        assert running.status.cameras[0].decoded == 60
    times = [time for _, _, time, _ in witness.frames]
    assert 11 <= len(times) <= 13
    assert min(b - a for a, b in itertools.pairwise(times)) > 0.19


def test_the_budget_bounds_what_is_charged(encodings: Encodings, tmp_path: Path) -> None:
    cameras = {f"c{n}": encodings.path("h264-cbr-50") for n in range(6)}
    settings = settings_of(tmp_path, cameras, gate={"budget_ms": 1.0})
    with gateway(settings, stages=[Witness()]) as running:
        running.run()
        status = running.status
    allowed = status.rounds * 1.0
    largest = 60 * 1.0  # no closure is longer than a group of 50
    assert status.charged_ms <= allowed + largest
    assert status.charged_ms > 0.3 * allowed, "the budget is left lying about"
    assert sum(c.decoded for c in status.cameras) < sum(c.arrived for c in status.cameras)


def test_feedback_reaches_the_policy_for_the_frames_that_were_chosen(
    encodings: Encodings, tmp_path: Path
) -> None:
    from triparty.device.gate.policies import make

    heard = []

    class Hears:
        def __init__(self) -> None:
            self._inner = make("round_robin")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def learn(self, feedback: Any) -> None:
            heard.append(feedback)

    settings = settings_of(
        tmp_path,
        {"a": encodings.path("h264-baseline"), "b": encodings.path("h265-closed")},
        tasks=[
            {"name": "light", "model": "model", "measure": "value", "step": 0.01},
            {"name": "dark", "model": "model", "measure": "presence"},
        ],
    )
    witness = Witness(say=brightness)
    with gateway(settings, stages=[witness], policy=Hears()) as running:  # type: ignore[arg-type]
        running.run()
    times = np.concatenate([f.time for f in heard])
    rewards = np.concatenate([f.reward for f in heard])
    assert len(times) == len(witness.frames) > 40
    assert sorted(times) == pytest.approx(sorted(t for _, _, t, _ in witness.frames))
    assert rewards.shape == (len(times), 2)
    assert np.concatenate([f.selected for f in heard]).all()
    assert rewards[:, 0].sum() > rewards[:, 1].sum() == 2  # light changes, darkness once each


class TestFaults:
    def test_a_stage_that_raises_costs_its_batch_alone(
        self, encodings: Encodings, tmp_path: Path
    ) -> None:
        class Moody(Witness):
            calls = 0

            def process(self, frames: Any) -> Any:
                Moody.calls += 1
                if Moody.calls % 3 == 0:
                    raise RuntimeError("not today")
                return super().process(frames)

        moody = Moody()
        settings = settings_of(tmp_path, {"a": encodings.path("h264-baseline")})
        with gateway(settings, stages=[moody]) as running:
            before = running.status
            running.run()
            count = running.status.stages["model"]
        assert count.errors == Moody.calls // 3 > 3
        assert count.last_error == "RuntimeError: not today"
        assert before.stages["model"].frames == 0, "a status stays what it was"
        assert 0 < running.status.cameras[0].looks == len(moody.frames)

    def test_a_stage_that_answers_too_little_is_an_error(
        self, encodings: Encodings, tmp_path: Path
    ) -> None:
        class Lazy(Witness):
            def process(self, frames: Any) -> Any:
                return []

        settings = settings_of(tmp_path, {"a": encodings.path("h264-baseline")})
        with gateway(settings, stages=[Lazy()]) as running:
            running.run()
            assert running.status.stages["model"].errors > 0

    def test_damaged_packets_end_nothing(self, encodings: Encodings, tmp_path: Path) -> None:
        path = tmp_path / "broken.ts"
        data = bytearray(encodings.path("h264-b-transport").read_bytes())
        rng = np.random.default_rng(3)
        for at in rng.integers(4000, len(data), 60):
            data[at] ^= 0xFF
        path.write_bytes(data)
        witness = Witness()
        with gateway(settings_of(tmp_path, {"a": path}), stages=[witness]) as running:
            running.run()
            status = running.status.cameras[0]
        assert status.stream.state is State.ENDED
        assert status.arrived > 0

    def test_a_packet_that_fails_to_decode_costs_its_group_alone(
        self, encodings: Encodings, tmp_path: Path
    ) -> None:
        there = encodings.path("h264-baseline")
        data = bytearray(there.read_bytes())
        with av.open(str(there)) as container:
            packets = [p for p in container.demux(video=0) if p.size]
            for number in (15, 17):  # in the second of five groups of 12
                at = (packets[number].pos or 0) + packets[number].size // 2
                data[at : at + 24] = bytes(b ^ 0xFF for b in data[at : at + 24])
            late = packets[24].pts
        path = tmp_path / "damaged.mp4"
        path.write_bytes(data)
        witness = Witness()
        settings = settings_of(tmp_path, {"a": path}, gate={"budget_ms": 1000.0})
        with gateway(settings, stages=[witness]) as running:
            running.run()
            status = running.status.cameras[0]
        assert status.failures >= 1
        assert status.stream.state is State.ENDED
        for _, pts, _, pixels in witness.frames:
            assert pixels == whole(there)[pts]
        assert sum(pts >= (late or 0) for _, pts, _, _ in witness.frames) >= 30

    def test_a_camera_without_a_decoder_is_said_to_fail(
        self, encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from triparty.device.gateway import workers

        def no_decoder(codec: str, extradata: bytes | None) -> Any:
            raise ValueError("no decoder for it")

        monkeypatch.setattr(workers, "StreamDecoder", no_decoder)
        settings = settings_of(tmp_path, {"a": encodings.path("h264-baseline")})
        with gateway(settings, stages=[Witness()]) as running:
            running.run()
            assert running.status.cameras[0].failures > 0
            assert running.status.cameras[0].stream.state is State.ENDED


@pytest.fixture(scope="session")
def film(encodings: Encodings) -> Film:
    return Film.of(encodings.path("h264-baseline"))


@pytest.fixture
def yard(film: Film) -> Iterator[FakeCamera]:
    with camera(film, speed=4) as running:
        yield running


class Running:
    """A gateway in a thread, as the command has it in its own."""

    def __init__(self, running: Gateway) -> None:
        self.gateway = running
        self.thread = threading.Thread(target=running.run)
        self.thread.start()

    def camera(self, name: str) -> Any:
        return next((c for c in self.gateway.status.cameras if c.name == name), None)

    def end(self) -> None:
        self.gateway.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


class TestLive:
    def test_cameras_die_flap_join_and_leave(
        self, encodings: Encodings, film: Film, yard: FakeCamera, tmp_path: Path
    ) -> None:
        witness = Witness(say=brightness)
        settings = settings_of(
            tmp_path,
            {
                "yard": yard.url,
                "dead": "rtsp://admin:hunter22@127.0.0.1:1/x",
                "file": {"url": str(encodings.path("h265-closed")), "loop": True},
            },
            defaults=LIVE,
            tasks=[{"name": "light", "model": "model", "measure": "value"}],
        )
        kept = Kept()
        before = threading.active_count()
        with gateway(settings, stages=[witness], clock=WallClock(), kept=kept) as made:
            running = Running(made)
            until(lambda: running.camera("yard").looks > 3)
            yard.mode, yard.after = Mode.CLOSE, 5
            yard.hang_up()
            until(lambda: running.camera("yard").stream.connections >= 3)
            yard.mode = Mode.OK
            looks = running.camera("yard").looks
            until(lambda: running.camera("yard").looks > looks + 3)
            dead = running.camera("dead")
            assert dead.stream.state in (State.WAITING, State.CONNECTING)
            assert "refused" in dead.stream.last_error
            assert running.camera("file").looks > 3
            with camera(film, speed=4) as other:
                made.add(settings.cameras[0].model_copy(update={"name": "b", "url": other.url}))
                until(lambda: running.camera("b") and running.camera("b").looks > 3)
                with pytest.raises(SettingsError, match="already"):
                    made.add(settings.cameras[0])
                made.remove("b")
                until(lambda: running.camera("b") is None)
            running.end()
        assert threading.active_count() <= before + 3  # the fake cameras' own
        assert "hunter22" not in str(kept.documents) + str(made.status)
        states = [each for each in kept.documents if each["type"] == "state"]
        assert [e["camera"] for e in states if e["state"] == "removed"] == ["b"]
        assert {e["state"] for e in states if e["camera"] == "dead"} <= {
            "connecting",
            "waiting",
        }
        assert ("file", "live") in {(e["camera"], e["state"]) for e in states}
        allowed = set(whole(encodings.path("h264-baseline")).values())
        allowed |= set(whole(encodings.path("h265-closed")).values())
        assert {pixels for *_, pixels in witness.frames} <= allowed

    def test_a_camera_may_come_back_with_another_codec(
        self, encodings: Encodings, yard: FakeCamera, tmp_path: Path
    ) -> None:
        witness = Witness()
        settings = settings_of(tmp_path, {"yard": yard.url}, defaults=LIVE)
        with gateway(settings, stages=[witness], clock=WallClock()) as made:
            running = Running(made)
            until(lambda: running.camera("yard").looks > 3)
            yard.film = Film.of(encodings.path("h265-closed"))
            yard.hang_up()
            until(lambda: running.camera("yard").stream.codec == "hevc")
            looks = running.camera("yard").looks
            until(lambda: running.camera("yard").looks > looks + 5)
            running.end()
            assert running.camera("yard").failures == 0
        others = set(whole(encodings.path("h265-closed")).values())
        seen = {pixels for *_, pixels in witness.frames}
        assert len(seen & others) > 3
        assert seen <= others | set(whole(encodings.path("h264-baseline")).values())

    def test_a_slow_model_holds_nothing_up_and_nothing_grows(
        self, encodings: Encodings, tmp_path: Path
    ) -> None:
        release = threading.Event()

        class Slow(Witness):
            def process(self, frames: Any) -> Any:
                release.wait(30)
                return super().process(frames)

        cameras = {
            f"c{n}": {"url": str(encodings.path("h264-all-intra")), "loop": True}
            for n in range(4)
        }
        settings = settings_of(tmp_path, cameras)
        with gateway(settings, stages=[Slow()], clock=WallClock()) as made:
            running = Running(made)
            until(lambda: made.status.frames_dropped > 20)
            assert all(c.stream.state is State.LIVE for c in made.status.cameras)
            release.set()
            until(lambda: all(c.looks for c in made.status.cameras))
            running.end()

    def test_a_corrupting_camera_goes_on(self, yard: FakeCamera, tmp_path: Path) -> None:
        yard.mode, yard.after = Mode.CORRUPT, 20
        settings = settings_of(tmp_path, {"yard": yard.url}, defaults=LIVE)
        with gateway(settings, stages=[Witness()], clock=WallClock()) as made:
            running = Running(made)
            until(lambda: running.camera("yard").stream.packets > 120)
            looks = running.camera("yard").looks
            yard.mode = Mode.OK
            until(lambda: running.camera("yard").looks > looks)
            running.end()


class TestTraces:
    def test_a_trace_holds_what_was_watched(self, encodings: Encodings, tmp_path: Path) -> None:
        settings = settings_of(
            tmp_path,
            {"a": encodings.path("h264-b-pyramid")},
            results={"traces": "traces"},
            tasks=[{"name": "light", "model": "model", "measure": "value"}],
        )
        witness = Witness(say=brightness)
        with gateway(settings, stages=[witness]) as running:
            running.run()
        assert (tmp_path / "traces").stat().st_mode & 0o777 == 0o700
        (folder,) = (tmp_path / "traces" / "a").iterdir()
        trace = read_trace(folder)
        assert len(trace.packets) == 60
        assert set(trace.results.pts.tolist()) == {pts for _, pts, _, _ in witness.frames}
        assert np.isfinite(trace.packets.cost_ms).sum() == running.status.cameras[0].decoded
        assert {p.stat().st_mode & 0o77 for p in folder.iterdir()} == {0}


class TestEvents:
    @pytest.mark.parametrize(
        "name", ["h264-main-b", "h264-open-gop", "h265-open", "vp9-altref", "av1", "mpeg4-b"]
    )
    def test_an_event_has_a_clip_of_the_very_packets(
        self, name: str, encodings: Encodings, tmp_path: Path
    ) -> None:
        def late(frame: StreamFrame) -> Seen:
            return float(frame.time > 1.2)

        kept = Kept()
        settings = settings_of(
            tmp_path,
            {"a b: c": encodings.path(name)},
            defaults={"before_s": 0.3, "after_s": 0.2},
            gate={"budget_ms": 100.0},
            results={"clips": "clips"},
            tasks=[{"name": "late", "model": "model", "hold_s": 0.1}],
        )
        if name == "vp9-altref":
            settings = settings.model_copy(
                update={"cameras": (settings.cameras[0].model_copy(update={"before_s": 0.9}),)}
            )
        with gateway(settings, stages=[Witness(say=late)], kept=kept) as running:
            running.run()
        (event,) = kept.of("event")
        assert (event["before"], event["after"]) == (False, True)
        assert event["time"] == pytest.approx(1.24, abs=0.1)
        clip = tmp_path / "clips" / str(event["clip"])
        assert clip.stat().st_mode & 0o77 == 0
        with av.open(str(encodings.path(name))) as source:
            there = [bytes(p) for p in source.demux(video=0) if p.size]
            annex_b = there[0][:3] in (b"\0\0\0", b"\0\0\x01") and name.startswith("h26")
        with av.open(str(clip)) as cut:
            packets = [bytes(p) for p in cut.demux(video=0) if p.size]
            assert cut.streams.video[0].frames in (0, len(packets))
        if annex_b:
            there, packets = [list(map(units, each)) for each in (there, packets)]
        left_out = min(missed(there[n:], packets) for n in range(len(there)))
        assert left_out <= 3, "only leading pictures of the first entry may be left out"
        assert set(whole(clip).values()) <= set(whole(encodings.path(name)).values())
        assert len(whole(clip)) >= len(packets) - 1 > 8

    def test_what_enters_a_zone_is_told_with_its_picture(
        self, encodings: Encodings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def walks(frame: StreamFrame) -> Seen:
            """Somebody stands to the left, from 1 s on to the right; another is masked."""
            left = 0.7 if frame.time > 1.0 else 0.1
            edges = [[left, 0.1, left + 0.2, 0.9], [0.4, 0.0, 0.6, 0.15]]
            boxes, scores = np.array(edges, np.float32), np.array([0.8, 0.9], np.float32)
            return Detections(boxes, np.array([0, 0], np.int32), scores)

        def half(name: str, left: float) -> dict[str, Any]:
            right = left + 0.5
            return {"name": name, "polygon": ((left, 0), (right, 0), (right, 1), (left, 1))}

        path, kept = encodings.path("h264-baseline"), Kept()
        masks = [{"polygon": ((0, 0), (1, 0), (1, 0.2), (0, 0.2))}]
        settings = settings_of(
            tmp_path,
            {
                "yard": {
                    "url": str(path),
                    "zones": [half("left", 0), half("right", 0.5)],
                    "masks": masks,
                }
            },
            gate={"budget_ms": 100.0},
            results={"snapshots": "pictures", "snapshot_pixels": 128},
            tasks=[
                {"name": "people", "model": "model", "measure": "count", "classes": [0]},
                {"name": "where", "model": "model", "measure": "boxes"},
            ],
        )
        rewards: list[tuple[float, float]] = []
        with gateway(settings, stages=[Witness(say=walks)], kept=kept) as running:
            learn = running._policy.learn

            def hear(feedback: Any) -> None:
                rewards.extend(zip(feedback.time, feedback.reward[:, 0], strict=True))
                learn(feedback)

            monkeypatch.setattr(running._policy, "learn", hear)
            running.run()
        assert [time > 1.0 for time, reward in rewards if reward == 1] == [False, True]
        result = kept.of("result")[-1]["answers"]
        assert (result["people"], result["people@left"], result["people@right"]) == (1, 0, 1)
        events = kept.of("event")
        told = [(e["zone"], e["kind"], e["before"], e["after"]) for e in events]
        assert sorted(told, key=str) == sorted(
            [
                (None, "enter", 0, 1),
                ("left", "enter", 0, 1),
                ("left", "leave", 1, 0),
                ("right", "enter", 0, 1),
            ],
            key=str,
        )
        for event in events:
            expected = {"task": "people", "label": "0", "measured": True}
            assert expected.items() <= event.items()
            confidence = None if event["kind"] == "leave" else pytest.approx(0.8)
            assert event["confidence"] == confidence
            picture = tmp_path / "pictures" / str(event["snapshot"])
            assert picture.stat().st_mode & 0o77 == 0
            with av.open(str(picture)) as container:
                (shown,) = container.decode(video=0)
            assert max(shown.width, shown.height) == 128
            # It is the frame that showed it: the same pixels but for JPEG's loss.
            frame = nearest(path, shown, event["time"])
            grey = shown.to_ndarray(format="gray").astype(int)
            assert np.abs(grey - frame).mean() < 4
        assert len({event["snapshot"] for event in events}) == 4


def nearest(path: Path, shown: av.VideoFrame, since: float) -> Any:
    """The luma of the frame of a film, from a time on, that is most like a picture."""
    grey = shown.to_ndarray(format="gray").astype(int)
    with av.open(str(path)) as container:
        frames = [
            each.to_ndarray(width=shown.width, height=shown.height, format="gray").astype(int)
            for each in container.decode(video=0)
            if since <= each.time <= since + 1.0
        ]
    return min(frames, key=lambda each: np.abs(each - grey).mean())


def missed(there: list[bytes], packets: list[bytes]) -> float:
    """How many packets lie between others that came in their order; inf if not all came."""
    at = 0
    for packet in packets:
        if packet not in there[at:]:
            return math.inf
        at = there.index(packet, at) + 1
    return at - len(packets)


def units(data: bytes) -> bytes:
    """NAL units without what separates them, whichever way that is, nor delimiters."""
    if data[:3] == b"\0\0\x01" or data[:4] == b"\0\0\0\x01":
        found = re.split(rb"\x00?\x00\x00\x01", data)[1:]
    else:
        found, at = [], 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            found.append(data[at + 4 : at + 4 + length])
            at += 4 + length
    return b"|".join(unit.rstrip(b"\0") for unit in found)


def test_objects_of_a_function_become_answers(encodings: Encodings, tmp_path: Path) -> None:
    def objects(frame: StreamFrame) -> Seen:
        return Detections(
            boxes=np.array([[0, 0, 0.5, 0.5]], np.float32),
            labels=np.array([7], np.int32),
            scores=np.array([0.9], np.float32),
        )

    kept = Kept()
    settings = settings_of(
        tmp_path,
        {"a": encodings.path("h264-baseline")},
        tasks=[
            {"name": "cats", "model": "model", "measure": "count", "classes": [7]},
            {"name": "dogs", "model": "model", "measure": "count", "classes": [8]},
        ],
    )
    with gateway(settings, stages=[Witness(say=objects)], kept=kept) as running:
        running.run()
    assert kept.of("result")[0]["answers"] == {"cats": 1, "dogs": 0}
    assert kept.of("result")[0]["seen"] == {
        "model": [{"label": 7, "score": 0.9, "box": [0.0, 0.0, 0.5, 0.5]}]
    }
    assert [event["task"] for event in kept.of("event")] == ["cats"]


def test_a_filter_that_finds_nothing_new_spares_the_model(
    encodings: Encodings, tmp_path: Path
) -> None:
    class Same(Witness):
        def process(self, frames: Any) -> Any:
            super().process(frames)
            return [Verdict(redundant=len(self.frames) > 8)] * len(frames)

    filter_, model = Same("filter"), Witness("model", brightness)
    settings = settings_of(
        tmp_path,
        {"a": encodings.path("h264-baseline")},
        tasks=[{"name": "light", "model": "model", "measure": "value"}],
    )
    with gateway(settings, stages=[filter_, model]) as running:
        running.run()
    assert 0 < len(model.frames) < len(filter_.frames)
    assert running.status.cameras[0].looks == len(filter_.frames)


def test_a_live_stream_cannot_be_read_faster_than_it_comes(tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="faster"),
        gateway(settings_of(tmp_path, {"a": "rtsp://127.0.0.1:1/x"})),
    ):
        pass


def test_a_run_ends_when_told(encodings: Encodings, tmp_path: Path) -> None:
    camera = {"url": str(encodings.path("h264-baseline")), "loop": True}
    with gateway(settings_of(tmp_path, {"a": camera}), clock=WallClock()) as running:
        threading.Timer(0.3, running.stop).start()
        began = time.monotonic()
        running.run()
        assert time.monotonic() - began < 20
