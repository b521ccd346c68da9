"""The compiler on a checkpoint of gigabytes: speed, memory, killed and resumed.

Every compilation is a process of its own, so that its CPU time and its peak memory are its
alone. What it is compared with runs right before it on the same files.
"""

from __future__ import annotations

import atexit
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.checkpoints import sharded_llama
from benchmarks.harness import BenchError, Effort, case, cpu_time
from triparty.common.files import sha256_file
from triparty.common.tensorfile import TensorFile
from triparty.developer.protect.journal import JOURNAL_FILE, Journal
from triparty.developer.protect.workspace import part_folder

RUNS = 3
COPIES = 3.5  # the source, what is made of it and a copy, with room to spare
FREE_MEMORY = 500_000_000
_BASELINE = "target: at least half the speed of cp plus sha256sum in the same run"


@dataclass(frozen=True)
class Place:
    """A temporary folder with a checkpoint in it."""

    folder: Path

    @property
    def source(self) -> Path:
        """The checkpoint."""
        return self.folder / "source"

    @property
    def files(self) -> list[Path]:
        """Its tensor files."""
        return sorted(self.source.glob("*.safetensors"))

    @property
    def size_bytes(self) -> int:
        """Bytes of them."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def bound_bytes(self) -> int:
        """The memory that a compilation may take."""
        entries = [
            entry for path in self.files for entry in TensorFile.open(path).entries.values()
        ]
        return 3 * max(entry.size_bytes for entry in entries) + FREE_MEMORY


@dataclass(frozen=True)
class Spent:
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@cache
def place(quick: bool) -> Place:
    """The checkpoint of this run of the suite: 4 GB, less if the disk is small."""
    folder = Path(tempfile.mkdtemp(prefix="triparty-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    layers, width, hidden, vocabulary = (
        (6, 1024, 2816, 8000) if quick else (8, 4096, 11008, 32000)
    )
    free = shutil.disk_usage(folder).free

    def size(layers: int) -> int:
        return 2 * (layers * (4 * width**2 + 3 * width * hidden) + 2 * vocabulary * width)

    wanted = layers
    while layers > 1 and COPIES * size(layers) > free:
        layers -= 1
    if layers < wanted:
        print(
            f"  {free / 1e9:.1f} GB of disk: {size(layers) / 1e9:.1f} GB instead of "
            f"{size(wanted) / 1e9:.1f} GB",
            file=sys.stderr,
        )
    sharded_llama(
        folder / "source", layers=layers, width=width, hidden=hidden, vocabulary=vocabulary
    )
    return Place(folder)


def command(at: Place, out: Path, *options: str) -> list[str]:
    """The command line of one compilation."""
    code = (
        "from triparty.developer.cli import app; app(standalone_mode=False); "
        "print(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])"
    )
    given = ["protect", str(at.source), str(out), "--seed", "1", *options]
    return [sys.executable, "-W", "ignore", "-c", code, *given]


def started(words: list[str]) -> subprocess.Popen[bytes]:
    """A process whose output is caught."""
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def spent_on(words: list[str]) -> Spent:
    """What a command took."""
    begin, cpu = time.monotonic(), list[float]()
    with cpu_time(cpu), started(words) as process:
        said = process.communicate()[0].split()
    if process.returncode:
        raise BenchError(f"{words[0]} ended with {process.returncode}")
    # Not ru_maxrss, which begins with what the parent had at the fork.
    peak = int(said[-1]) * 1024 if said and said[-1].isdigit() else 0
    return Spent(time.monotonic() - begin, cpu[0], peak)


@cache
def compiled(quick: bool, run: int, *options: str) -> tuple[Spent, Spent]:
    """Of one compilation, and of copying and hashing the same files right before it."""
    at = place(quick)
    names = [str(path) for path in at.files]
    copy = at.folder / "copy"
    copy.mkdir()
    steps = [
        spent_on(["cp", "--reflink=never", *names, str(copy)]),
        spent_on(["sync", *(str(path) for path in copy.iterdir())]),
        spent_on(["sha256sum", *names]),
    ]
    shutil.rmtree(copy)
    baseline = Spent(sum(s.seconds for s in steps), sum(s.cpu_seconds for s in steps), 0)
    out = at.folder / "out"
    spent = spent_on(command(at, out, *options))
    shutil.rmtree(out)
    return spent, baseline


def _runs(effort: Effort, *options: str) -> Iterator[tuple[Spent, Spent]]:
    for run in range(2 if effort.quick else RUNS):
        yield compiled(effort.quick, run, *options)


@case(
    "`permutation` (norms folded), speed as a share of cp + sha256sum",
    unit="ratio of CPU time",
    better="higher",
    target=0.5,
    reference=_BASELINE,
)
def permutation_speed(effort: Effort) -> Iterator[float]:
    """CPU seconds of cp + sha256sum over CPU seconds of the compiler, started and ended."""
    for spent, baseline in _runs(effort):
        yield baseline.cpu_seconds / spent.cpu_seconds


@case(
    "`permutation` (norms folded), speed as a share of cp, sync, sha256sum",
    unit="ratio of elapsed time",
    better="higher",
    target=0.5,
    reference=f"{_BASELINE}; the copy made durable, as the compiler's files are",
)
def permutation_elapsed(effort: Effort) -> Iterator[float]:
    """Elapsed seconds of both; noisy where others use the disk."""
    for spent, baseline in _runs(effort):
        yield baseline.seconds / spent.seconds


@case(
    "`permutation` (norms kept), speed as a share of cp + sha256sum",
    unit="ratio of CPU time",
    better="higher",
    target=0.5,
    reference=_BASELINE,
)
def kept_norms_speed(effort: Effort) -> Iterator[float]:
    """The same with every weight moved bit for bit."""
    for spent, baseline in _runs(effort, "--norms", "keep"):
        yield baseline.cpu_seconds / spent.cpu_seconds


@case("`permutation`, bytes of the checkpoint per elapsed second", unit="MB/s", better="higher")
def permutation_rate(effort: Effort) -> Iterator[float]:
    """Megabytes a second, everything included."""
    for spent, _ in _runs(effort):
        yield place(effort.quick).size_bytes / 1e6 / spent.seconds


@case(
    "`permutation`, peak memory as a share of 3 x the largest tensor + 500 MB",
    unit="ratio",
    better="lower",
    target=1.0,
    reference="target: 3 x the largest tensor + 500 MB",
)
def permutation_memory(effort: Effort) -> Iterator[float]:
    """The largest resident set of the process, mapped files included."""
    for spent, _ in _runs(effort):
        yield spent.peak_bytes / place(effort.quick).bound_bytes


def products_cpu_seconds(at: Place) -> float:
    """CPU seconds of the bare matrix products of a compilation, in float32.

    Each matrix with the residual's key, and the attention's with its heads' (128 wide). Layers
    are alike: one is measured.
    """
    counts: dict[tuple[int, ...], int] = {}
    for path in at.files:
        for name, entry in TensorFile.open(path).entries.items():
            if len(entry.shape) == 2 and "norm" not in name:
                heads = "self_attn" in name
                kind = (*sorted(entry.shape), int(heads))
                counts[kind] = counts.get(kind, 0) + 1
    total = 0.0
    for (width, long, heads), count in counts.items():
        weight, key = np.ones((long, width), np.float32), np.ones((width, width), np.float32)
        small = np.ones((128, 128), np.float32)
        np.matmul(weight[:256], key)  # the threads are there
        spent: list[float] = []
        with cpu_time(spent):
            np.matmul(weight, key)
            if heads:
                np.matmul(small, weight.reshape(-1, 128, width))
        total += count * spent[0]
    return total


def _orthogonal_runs(effort: Effort) -> Iterator[Spent]:
    for run in range(2):
        yield compiled(effort.quick, run, "--scheme", "orthogonal")[0]


@case(
    "`orthogonal`, time as a multiple of its bare matrix products",
    unit="ratio of CPU time",
    better="lower",
    target=1.5,
    reference="target: at most 1.5 x the same products in NumPy, same threads",
)
def orthogonal_time(effort: Effort) -> Iterator[float]:
    """CPU seconds of the compiler over those of the products alone."""
    for spent in _orthogonal_runs(effort):
        yield spent.cpu_seconds / products_cpu_seconds(place(effort.quick))


@case("`orthogonal`, bytes of the checkpoint per elapsed second", unit="MB/s", better="higher")
def orthogonal_rate(effort: Effort) -> Iterator[float]:
    """Megabytes a second, everything included."""
    for spent in _orthogonal_runs(effort):
        yield place(effort.quick).size_bytes / 1e6 / spent.seconds


@case(
    "`orthogonal`, peak memory as a share of 3 x the largest tensor + 500 MB",
    unit="ratio",
    better="lower",
    target=1.0,
    reference="target: 3 x the largest tensor + 500 MB",
)
def orthogonal_memory(effort: Effort) -> Iterator[float]:
    """The largest resident set of the process, mapped files included."""
    for spent in _orthogonal_runs(effort):
        yield spent.peak_bytes / place(effort.quick).bound_bytes


@case(
    "`permutation`, killed half-way and resumed: work that is done twice",
    unit="share of the bytes",
    better="lower",
    reference="the result is compared with an undisturbed run's and is the same",
)
def resumed(effort: Effort) -> Iterator[float]:
    """Bytes that a killed run had written and its journal did not tell of, over all."""
    at = place(effort.quick)
    out = at.folder / "out"
    spent_on(command(at, out))
    expected = _digests(out)
    shutil.rmtree(out)
    for _ in range(2 if effort.quick else RUNS):
        with started(command(at, out)) as process:
            while _written(out) < at.size_bytes / 2 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        if process.returncode != -signal.SIGKILL:
            raise BenchError("the run ended before it was killed")
        written, journal = _written(out), Journal.read(part_folder(out) / JOURNAL_FILE)
        spent_on(command(at, out))
        if _digests(out) != expected:
            raise BenchError("a run that was killed and resumed wrote other bytes")
        shutil.rmtree(out)
        yield (written - journal.durable_bytes) / at.size_bytes


def _written(out: Path) -> int:
    """Bytes that a compilation has written so far."""
    return sum(path.stat().st_size for path in part_folder(out).rglob("*.safetensors"))


def _digests(out: Path) -> dict[str, str]:
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in files}
