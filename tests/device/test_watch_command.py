"""`triparty device watch` as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from headless import until

MODEL = """
def look(rgb):
    return float(rgb[::8, ::8].mean() > 100)
"""


def watch(
    folder: Path, config: str, *words: str, check: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*command(folder, config), *words],
        capture_output=True,
        text=True,
        env=environment(folder),
        timeout=120,
        check=False,
    )
    assert done.returncode == check, done.stderr
    return done


def command(folder: Path, config: str) -> list[str]:
    (folder / "looker.py").write_text(MODEL)
    (folder / "watch.toml").write_text(config)
    path = str(folder / "watch.toml")
    return [sys.executable, "-m", "triparty.common", "device", "watch", path]


def environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def config(test_data: Path) -> str:
    clip = test_data / "clips" / "car-detection.mp4"
    return f"""
[gate]
policy = "round_robin"
[[models]]
name = "m"
python = "looker:look"
[[tasks]]
name = "bright"
model = "m"
[results]
lines = "results.jsonl"
database = "results.db"
[[cameras]]
name = "road"
url = "{clip}"
"""


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_file_is_watched_to_its_end(tmp_path: Path, config: str) -> None:
    done = watch(tmp_path, config, "--fast", "--json")
    told = documents(done.stdout)
    summary = told[-1]
    assert summary["type"] == "summary"
    (camera,) = summary["cameras"]
    assert camera["state"] == "ended"
    assert camera["packets"] == 377
    assert 0 < camera["held_packets"] < 377
    assert camera["held_bytes"] > camera["held_packets"]
    measured = sum(line["packets"] for line in summary["decode_costs"])  # audits are, too
    assert camera["decoded"] <= measured <= 2 * 377
    kinds = [(line["codec"], line["width"], line["intra"]) for line in summary["decode_costs"]]
    assert sorted(kinds) == [("h264", 768, False), ("h264", 768, True)]
    assert all(line["cpu_ms"] + line["cpu_ms_per_kb"] > 0 for line in summary["decode_costs"])
    results = [each for each in told if each["type"] == "result"]
    assert len(results) == camera["looks"] > 0
    assert all(each["seen"].keys() == {"m"} for each in results)
    assert documents((tmp_path / "results.jsonl").read_text()) == told[:-1]
    assert (tmp_path / "results.db").stat().st_mode & 0o77 == 0
    assert "runs looker:look with all rights" in done.stderr


def test_once_stops_when_every_camera_was_seen(tmp_path: Path, config: str) -> None:
    looped = config + "loop = true\n"
    done = watch(tmp_path, looped, "--once")
    assert "road" in done.stdout
    missing = config + '[[cameras]]\nname = "gone"\nurl = "gone.mp4"\n'
    done = watch(tmp_path, missing + "loop = true\n", "--once", "--json", check=1)
    states = {c["camera"]: c["state"] for c in documents(done.stdout)[-1]["cameras"]}
    assert states["gone"] == "failed"


def test_seconds_bound_a_run(tmp_path: Path, config: str) -> None:
    done = watch(tmp_path, config + "loop = true\n", "--seconds", "0.5", "--json")
    assert documents(done.stdout)[-1]["seconds"] >= 0.5


def test_check_reads_the_file_and_opens_no_camera(tmp_path: Path, config: str) -> None:
    done = watch(tmp_path, config, "--check")
    assert "nothing wrong, cameras: 1" in done.stdout
    assert not (tmp_path / "results.db").exists()
    wrong = watch(tmp_path, config.replace("policy =", "polcy ="), "--check", check=2)
    assert "nearest known one is policy" in wrong.stderr
    wrong = watch(tmp_path, config.replace('"round_robin"', '"x"'), "--check", check=2)
    assert "expected one of" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_metrics_were_there(
    number: int, tmp_path: Path, config: str
) -> None:
    text = config + "loop = true\n[metrics]\nport = 0\n"
    text += '[[cameras]]\nname = "dead"\nurl = "rtsp://u:hunter22@127.0.0.1:1/x"\n'
    process = subprocess.Popen(
        command(tmp_path, text),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert url.startswith("http://127.0.0.1:")
        scraped: list[str] = [""]

        def looked() -> bool:
            with urllib.request.urlopen(url, timeout=10) as answer:
                scraped[0] = answer.read().decode()
            return 'triparty_device_looks_total{camera="road"} 0.0' not in scraped[0]

        until(looked)
        assert 'triparty_device_state{camera="dead",state="waiting"} 1.0' in scraped[0]
        assert "hunter22" not in scraped[0]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "dead" in out
    assert "refused" in out
    assert "hunter22" not in out + err
    results = documents((tmp_path / "results.jsonl").read_text())
    assert results, "what was seen before the signal was lost"


def test_a_missing_extra_is_named(tmp_path: Path, config: str) -> None:
    words = command(tmp_path, config)[3:]
    code = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'av' else find(name, *rest)\n"
        f"sys.argv = ['triparty', *{words!r}]\n"
        "from triparty.common.cli import main\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'triparty[gateway]'" in done.stderr


def test_help_of_the_device_loads_no_media_library() -> None:
    code = (
        "import sys\nsys.argv = ['triparty', 'device', 'watch', '--help']\n"
        "from triparty.common.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'av', 'onnxruntime', 'numpy', 'pydantic'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@contextmanager
def running(
    folder: Path, config: str, before: Sequence[str] = (), **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process whose first line was read: it knows where its metrics are."""
    process = subprocess.Popen(
        [*before, *command(folder, config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(folder),
        **more,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_a_hang_up_signal_reads_the_file_again(tmp_path: Path, config: str) -> None:
    text = config + "loop = true\n[metrics]\nport = 0\n"
    clip = json.dumps(tomllib.loads(config)["cameras"][0]["url"])
    more = f'[[cameras]]\nname = "second"\nurl = {clip}\nloop = true\n'
    file = tmp_path / "watch.toml"
    with running(tmp_path, text, start_new_session=True) as process:
        for wanted in ("polcy = 1\n", text + more):
            file.write_text(wanted)
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            expected = "refused" if wanted.startswith("polcy") else "cameras: 2"
            while expected not in (told := process.stderr.readline()):
                assert told, "it ended"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "road" in out
    assert "second" in out


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="a terminal of POSIX")
def test_a_terminal_that_is_closed_ends_it(tmp_path: Path, config: str) -> None:
    text = config + "loop = true\n[metrics]\nport = 0\n"
    ours, theirs = os.openpty()
    adopt = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
    )
    before = (sys.executable, "-c", adopt, os.ttyname(theirs))
    results = tmp_path / "results.jsonl"
    with running(tmp_path, text, before, start_new_session=True) as process:
        until(lambda: results.exists() and results.stat().st_size)
        os.close(theirs)
        os.close(ours)
        assert process.wait(timeout=60) == 0
    assert documents(results.read_text())
