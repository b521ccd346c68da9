"""The command line and the cloud: how soon they answer, how fast bytes move."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import page_loads, site_beside, whole_site
from benchmarks.clouds import fill, new_cloud, serving, start_up_s
from benchmarks.harness import Case, Effort, case, cpu_time
from triparty.common.connection import Connection
from triparty.common.files import sha256_file
from triparty.common.transport import CloudClient


def _cpu_of(*words: str) -> float:
    spent: list[float] = []
    with cpu_time(spent):
        subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    return spent[0]


@case(
    "CPU time of `triparty --help`",
    unit="s",
    better="lower",
    target=0.3,
    reference="design target",
)
def help_cpu(effort: Effort) -> Iterator[float]:
    """CPU seconds of the whole process."""
    for _ in range(effort.runs):
        yield _cpu_of("-m", "triparty.common", "--help")


@case("CPU time of an empty Python process (baseline)", unit="s", better="lower")
def empty_cpu(effort: Effort) -> Iterator[float]:
    """What the interpreter itself costs."""
    for _ in range(effort.runs):
        yield _cpu_of("-c", "pass")


@contextmanager
def _client() -> Iterator[tuple[CloudClient, Path]]:
    """A developer's client of a running cloud, and a folder for files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, home, _ = new_cloud(folder)
        with serving(data) as url:
            token = home.access().token
            with CloudClient(Connection(url, token=token)) as client:
                yield client, folder


def _latencies(effort: Effort) -> Iterator[list[float]]:
    """Seconds of each of many small requests with a token, one after another, a run each."""
    count = 50 if effort.quick else 1000
    with _client() as (client, _):
        for _ in range(effort.runs):
            spent = []
            for _ in range(count):
                begun = time.perf_counter()
                client.statements()
                spent.append(time.perf_counter() - begun)
            yield spent


@case(
    "`GET /v1/latest` with a token over one connection",
    unit="requests/s",
    better="higher",
    reference="one client, SQLite, no TLS, loopback",
)
def small_requests(effort: Effort) -> Iterator[float]:
    """Requests per second."""
    for spent in _latencies(effort):
        yield len(spent) / sum(spent)


@case(
    "p99 of `GET /v1/latest` with a token over one connection",
    unit="ms",
    better="lower",
    reference="one client, SQLite, no TLS, loopback",
)
def small_requests_p99(effort: Effort) -> Iterator[float]:
    """Milliseconds within which 99 of 100 requests are answered."""
    for spent in _latencies(effort):
        yield 1000 * sorted(spent)[len(spent) * 99 // 100]


def _against_cp(effort: Effort, *, is_upload: bool) -> Iterator[float]:
    size = (4 if effort.quick else 256) << 20
    with _client() as (client, folder):
        for run in range(effort.runs):
            file, copy = folder / "file", folder / "copy"
            file.write_bytes(os.urandom(size))
            digest = sha256_file(file)

            def upload(file: Path = file, digest: str = digest) -> None:
                client.upload_blob(file, sha256=digest, size=size)

            def download(run: int = run, digest: str = digest) -> None:
                client.download_blob(folder / f"down{run}", sha256=digest, size=size)

            def copied(file: Path = file, copy: Path = copy) -> None:
                shutil.copyfile(file, copy)
                with copy.open("rb+") as stream:
                    os.fsync(stream.fileno())

            if not is_upload:
                upload()
            yield _seconds(upload if is_upload else download) / _seconds(copied)


def _seconds(act: Callable[[], None]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


@case(
    "upload of 256 MB over `cp` and fsync of the same bytes",
    unit="ratio",
    better="lower",
    reference="both ends hash; loopback, no TLS, same disk",
)
def upload_against_cp(effort: Effort) -> Iterator[float]:
    """How many times as long as a copy."""
    yield from _against_cp(effort, is_upload=True)


@case(
    "download of 256 MB over `cp` and fsync of the same bytes",
    unit="ratio",
    better="lower",
    reference="the client hashes; loopback, no TLS, same disk",
)
def download_against_cp(effort: Effort) -> Iterator[float]:
    """How many times as long as a copy."""
    yield from _against_cp(effort, is_upload=False)


@case(
    "start-up of a cloud with 10,000 artifacts over one with none",
    unit="ratio",
    better="lower",
    target=1.2,
    reference="design target: nothing is read at start",
)
def start_up(effort: Effort) -> Iterator[float]:
    """Time to the ready line."""
    with tempfile.TemporaryDirectory() as name:
        empty, full = Path(name) / "empty", Path(name) / "full"
        none, _, _ = new_cloud(empty)
        many, home, _ = new_cloud(full)
        fill(many, home, 200 if effort.quick else 10_000)
        for _ in range(effort.runs):
            before = start_up_s(none)
            yield start_up_s(many) / before


@case("start-up of a cloud with no artifact", unit="s", better="lower")
def start_up_empty(effort: Effort) -> Iterator[float]:
    """Seconds to the ready line."""
    with tempfile.TemporaryDirectory() as name:
        data, _, _ = new_cloud(Path(name))
        for _ in range(effort.runs):
            yield start_up_s(data)


SITE: tuple[Case, ...] = (*whole_site.WHOLE_SITE, *site_beside.BESIDE, *page_loads.PAGES)
