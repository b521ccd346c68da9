"""Hours in a minute: cameras that flap, corrupt and leave keep neither memory nor files."""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

import pytest
from headless import until
from rtsp_server import Film, Mode, camera
from video_encodings import Encodings
from watched import Witness, gateway, settings_of

from triparty.device.gateway.clock import WallClock


def resident_mib() -> float:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.slow
def test_memory_files_and_threads_stay_where_they_are(
    encodings: Encodings, tmp_path: Path
) -> None:
    film = Film.of(encodings.path("h264-baseline"))
    looped = {"url": str(encodings.path("h264-b-pyramid")), "loop": True}
    with camera(film, speed=20) as yard:
        settings = settings_of(
            tmp_path,
            {"yard": yard.url, "file": looped},
            defaults={
                "timeout_s": 1.0,
                "stall_s": 0.5,
                "retry_s": 0.02,
                "retry_longest_s": 0.1,
                "ffmpeg": {"analyzeduration": "100000"},
            },
            tasks=[{"name": "light", "model": "model", "measure": "value", "looks": 1}],
            results={"clips": "clips", "clips_mib": 1},
        )
        witness = Witness(say=lambda frame: float(frame.luma().mean()))
        with gateway(settings, stages=[witness], clock=WallClock()) as running:
            loop = threading.Thread(target=running.run)
            loop.start()
            marks = []
            modes = [Mode.CLOSE, Mode.OK, Mode.CORRUPT, Mode.STALL, Mode.OK]
            for lap in range(12):
                for mode in modes:
                    yard.mode, yard.after = mode, 10
                    yard.hang_up()
                    time.sleep(1.0)
                extra = settings.cameras[1].model_copy(update={"name": f"extra {lap}"})
                running.add(extra)
                name = extra.name
                until(
                    lambda n=name: any(c.name == n and c.looks for c in running.status.cameras)
                )
                running.remove(name)
                witness.frames.clear()
                marks.append((resident_mib(), len(os.listdir("/proc/self/fd"))))
            running.stop()
            loop.join(30)
            yard_status = running.status.cameras[0].stream
        assert yard_status.connections > 20
        early, late = marks[3], marks[-1]
        assert late[0] < early[0] + 25, marks
        assert late[1] <= early[1] + 4, marks
