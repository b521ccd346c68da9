"""A compilation that is killed at any moment and repeated writes what it would have written."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.common.errors import CheckpointError, StateError, TripartyError
from triparty.common.files import locked
from triparty.developer.protect import Choices, output, protect, workspace
from triparty.developer.protect.journal import Journal
from triparty.developer.protect.workspace import SPARE_BYTES, part_folder

CRASHES = Path(__file__).parent.parent / "support" / "crashes.py"


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def source(make_model: Any) -> Path:
    folder: Path = make_model("llama", shard="8KB")
    return folder


class CutError(BaseException):
    """Stands for what no handler of the compiler catches."""


def cut_off(source: Path, out: Path, *, at: int = 9, **options: Any) -> Path:
    """The folder that a run leaves that is interrupted at a record of its journal."""
    left, write = [at], Journal.write

    def counted(self: Journal, path: Path) -> None:
        write(self, path)
        left[0] -= 1
        if not left[0]:
            raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "RECORD_BYTES", 1)
        patch.setattr(Journal, "write", counted)
        with pytest.raises(CutError):
            protect(str(source), out, **options)
    assert not out.exists()
    return part_folder(out)


def one_threaded() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.mark.parametrize("records", [4, 31, 32, 33])
def test_a_run_with_the_head_on_the_device_goes_on(
    source: Path, tmp_path: Path, records: int
) -> None:
    """Cut off in the model, before, in and behind the head; and only for that choice."""
    choices = Choices.of(head="device")
    cut_off(source, tmp_path / "out", at=records, choices=choices, seed=1)
    with pytest.raises(StateError, match="head"):
        protect(str(source), tmp_path / "out", choices=Choices(), seed=1)
    protect(str(source), tmp_path / "out", choices=choices, seed=1)
    protect(str(source), tmp_path / "whole", choices=choices, seed=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("scheme", ["permutation", "orthogonal"])
def test_a_run_goes_on_at_a_tensor(source: Path, tmp_path: Path, scheme: str) -> None:
    choices = Choices.of(scheme=scheme)
    protect(str(source), tmp_path / "whole", choices=choices, seed=3)
    part = cut_off(source, tmp_path / "out", choices=choices, seed=3)
    assert part.stat().st_mode & 0o777 == 0o700
    journal = Journal.read(part / "journal.json")
    assert journal.partial
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        hosted = output.write_tensors

        def noted(path: Path, tensors: Any, **options: Any) -> Any:
            reached = options["reached"]
            made.append(f"{path.name} {reached.tensors if reached else 0}")
            return hosted(path, tensors, **options)

        patch.setattr(workspace, "write_tensors", noted)
        protect(str(source), tmp_path / "out", choices=choices, seed=3)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert not part.exists()
    (name, reached), *_ = journal.partial.items()
    assert made[0] == f"{Path(name).name} {reached.tensors}"
    large = {n for n in files(tmp_path / "whole") if n.endswith(".safetensors")}
    assert len(made) == len(large - {"device/head.safetensors"} - journal.files.keys())


def test_the_master_key_is_kept(source: Path, tmp_path: Path) -> None:
    part = cut_off(source, tmp_path / "out", at=2)
    key = (part / "out" / "secrets" / "master.key").read_bytes()
    assert (part / "out" / "secrets" / "master.key").stat().st_mode & 0o777 == 0o600
    protect(str(source), tmp_path / "out")
    assert (tmp_path / "out" / "secrets" / "master.key").read_bytes() == key


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_durable_steps(every: int, make_model: Any, tmp_path: Path) -> None:
    source = make_model("llama", shard="16KB", num_hidden_layers=1)
    (tmp_path / "runs").mkdir()
    ended = subprocess.run(
        [sys.executable, str(CRASHES), str(source), str(tmp_path / "runs"), str(every)],
        env=one_threaded(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["killed"] > found["steps"] // every > 10
    assert found["wrong"] == {}


@pytest.mark.slow
def test_killed_at_random_moments(make_model: Any, tmp_path: Path) -> None:
    """Real processes of the command line, real SIGKILL."""
    source = make_model(
        "llama", shard="2MB", hidden_size=256, intermediate_size=700, vocab_size=2000
    )
    command = [sys.executable, "-c", _COMMAND, "protect", str(source)]
    began = time.monotonic()
    subprocess.run([*command, str(tmp_path / "whole"), "--seed", "4"], check=True)
    whole_seconds = time.monotonic() - began
    expected, draw = files(tmp_path / "whole"), random.Random(0)
    cut_inside = 0
    for number in range(6):
        out = tmp_path / f"out{number}"
        for _ in range(3):
            with subprocess.Popen([*command, str(out), "--seed", "4"]) as process:
                _wait_for(part_folder(out) / "journal.json", process)
                time.sleep(draw.uniform(0, 0.5 * whole_seconds))
                process.send_signal(signal.SIGKILL)
            cut_inside += part_folder(out).exists()
            assert not out.exists() or files(out) == expected
            if out.exists():
                break
        if not out.exists():
            subprocess.run([*command, str(out), "--seed", "4"], check=True)
        assert files(out) == expected
    assert cut_inside >= 3


# Small pieces and a record after each tensor, slowly: something to be killed in.
_COMMAND = """
import time
from triparty.developer.protect import output, rekeying
output.RECORD_BYTES, rekeying.CACHED_BYTES = 1, 1 << 14
finite = rekeying._finite
rekeying._finite = lambda *args: time.sleep(0.0005) or finite(*args)
from triparty.developer.cli import app
app()
"""


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)


def test_another_compilation_is_refused(source: Path, make_model: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part = cut_off(source, out, seed=1)
    before = files(part)
    other = Path(shutil.copytree(source, tmp_path / "other"))  # keeps times: the same source
    config = other / "generation_config.json"
    for options, named in (
        ({"seed": 2}, "keys: of seed 1, now of seed 2"),
        ({}, "keys: of seed 1, now fresh"),
        ({"seed": 1, "choices": Choices.of(scheme="orthogonal")}, "scheme: permutation, now"),
        ({"seed": 1, "choices": Choices(epoch=2)}, "epoch: 1, now 2"),
    ):
        with pytest.raises(StateError, match=rf"{named}.*--restart"):
            protect(str(source), out, **options)
    config.write_text('{"eos_token_id": 2}')
    with pytest.raises(StateError, match=r"generation_config\.json: .*, now"):
        protect(str(other), out, seed=1)
    shutil.copy2(source / "generation_config.json", config)
    shard = sorted(other.glob("model-*.safetensors"))[0]
    os.utime(shard)
    with pytest.raises(StateError, match=rf"{shard.name}: .* changed"):
        protect(str(other), out, seed=1)
    assert files(part) == before
    shutil.copystat(source / shard.name, shard)
    protect(str(other), out, seed=1)
    protect(str(source), tmp_path / "whole", seed=1)
    same, whole = files(out), files(tmp_path / "whole")
    assert same.pop("secrets/key.json") != whole.pop("secrets/key.json")  # names its source
    assert same == whole


def test_a_restart_begins_anew(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part = cut_off(source, out)
    key = (part / "out" / "secrets" / "master.key").read_bytes()
    protect(str(source), out, choices=Choices.of(scheme="orthogonal"), restart=True)
    assert (out / "secrets" / "master.key").read_bytes() != key
    assert not part.exists()
    with pytest.raises(StateError, match="exists already"):
        protect(str(source), out, restart=True)


def _cut_journal(part: Path) -> None:
    path = part / "journal.json"
    path.write_bytes(path.read_bytes()[:-20])


def _other_format(part: Path) -> None:
    path = part / "journal.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def _no_files(part: Path) -> None:
    path = part / "journal.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": None}))


def _shorter_file(part: Path) -> None:
    name = next(iter(Journal.read(part / "journal.json").files))
    os.truncate(part / "out" / name, 100)


def _shorter_part(part: Path) -> None:
    name = next(iter(Journal.read(part / "journal.json").partial))
    os.truncate(part / "out" / name, 100)


def _other_header(part: Path) -> None:
    name = next(iter(Journal.read(part / "journal.json").partial))
    with (part / "out" / name).open("r+b") as stream:
        stream.seek(20)
        stream.write(b"X")


def _no_key(part: Path) -> None:
    (part / "out" / "secrets" / "master.key").unlink()


def _other_key(part: Path) -> None:
    (part / "out" / "secrets" / "master.key").write_bytes(bytes(32))


def _short_key(part: Path) -> None:
    (part / "out" / "secrets" / "master.key").write_bytes(bytes(31))


@pytest.mark.parametrize(
    "damage",
    [
        _cut_journal,
        _other_format,
        _no_files,
        _shorter_file,
        _shorter_part,
        _other_header,
        _no_key,
        _other_key,
        _short_key,
    ],
)
def test_a_damaged_folder_is_refused(
    damage: Callable[[Path], None], source: Path, tmp_path: Path
) -> None:
    part = cut_off(source, tmp_path / "out", at=9, seed=1)
    damage(part)
    with pytest.raises(StateError, match=r"an earlier run left is of no use: .*--restart"):
        protect(str(source), tmp_path / "out", seed=1)
    assert not (tmp_path / "out").exists()
    protect(str(source), tmp_path / "out", seed=1, restart=True)
    protect(str(source), tmp_path / "whole", seed=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_the_journal_does_not_tell_of_is_made_anew(source: Path, tmp_path: Path) -> None:
    part = cut_off(source, tmp_path / "out", seed=1)
    (part / "out" / "model").mkdir(exist_ok=True)
    (part / "out" / "model" / "config.json").write_text("half of it")
    (part / "out" / "model" / ".config.json.0123.part").write_text("half of it")
    protect(str(source), tmp_path / "out", seed=1)
    protect(str(source), tmp_path / "whole", seed=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_one_process_at_a_time(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part = cut_off(source, out, seed=1)
    before = files(part)
    with locked(part, wait=False), pytest.raises(StateError, match="another process"):
        protect(str(source), out, seed=1)
    assert files(part) == before
    protect(str(source), out, seed=1)


def test_an_undisturbed_run_leaves_nothing_else(source: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    protect(str(source), tmp_path / "new" / "out")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert (tmp_path / "new" / "out").stat().st_mode & 0o777 == 0o777 & ~_umask()
    assert not list((tmp_path / "new" / "out").rglob(".*"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_run_that_had_finished_is_finished(source: Path, tmp_path: Path) -> None:
    """Killed between the rename and the tidying up."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "_remove", lambda part: (_ for _ in ()).throw(CutError()))
        with pytest.raises(CutError):
            protect(str(source), out, seed=1)
    made = files(out)
    assert part_folder(out).exists()
    with pytest.raises(StateError, match="exists already"):
        protect(str(source), out, seed=2)
    with pytest.raises(StateError, match="exists already"):
        protect(str(source), out, seed=1, restart=True)
    protect(str(source), out, seed=1)
    assert files(out) == made
    assert not part_folder(out).exists()
    with pytest.raises(StateError, match="exists already"):
        protect(str(source), out, seed=1)


def test_a_full_disk_keeps_what_was_made(source: Path, tmp_path: Path) -> None:
    out, calls = tmp_path / "out", [0]
    sync = output._sync

    def full(stream: Any) -> None:
        calls[0] += 1
        if calls[0] > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "RECORD_BYTES", 1)
        patch.setattr(output, "_sync", full)
        with pytest.raises(StateError, match=r"No space left.*the same command goes on"):
            protect(str(source), out, seed=1)
    assert not out.exists()
    assert Journal.read(part_folder(out) / "journal.json").partial
    protect(str(source), out, seed=1)
    protect(str(source), tmp_path / "whole", seed=1)
    assert files(out) == files(tmp_path / "whole")


def test_an_error_that_would_come_again_leaves_nothing(make_model: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source, name = make_model("llama"), "model.layers.1.mlp.up_proj.weight"
    tensors = dict(load_file(source / "model.safetensors"))
    tensors[name][2, 3] = np.nan
    save_file(tensors, source / "model.safetensors")
    (tmp_path / "new").mkdir()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=rf"{name}.*NaN"):
            protect(str(source), tmp_path / "new" / "out")
        assert list((tmp_path / "new").iterdir()) == []


def test_too_little_disk_is_said_before_anything_is_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(free: int) -> Any:
        def answer(path: Path) -> Any:
            asked.append(path)
            return shutil._ntuple_diskusage(10**12, 10**12 - free, free)  # type: ignore[attr-defined]

        return answer

    out = tmp_path / "new" / "out"
    monkeypatch.setattr(shutil, "disk_usage", usage(SPARE_BYTES))
    with pytest.raises(StateError, match=r"needs 67 MB.*has 67 MB left"):
        protect(str(source), out)
    assert asked == [tmp_path]
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", usage(10**9))
    part = cut_off(source, out, at=9, seed=1)
    written = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    total = sum(len(data) for data in files(source).values())
    monkeypatch.setattr(shutil, "disk_usage", usage(SPARE_BYTES + total - written))
    protect(str(source), out, seed=1)


def test_a_real_disk_that_is_too_small(source: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only the superuser may mount a small disk")
    try:
        with pytest.raises(StateError, match=r"needs 67 MB.*has 0 MB left"):
            protect(str(source), disk / "out", seed=1)
        assert list(disk.iterdir()) == []
        (disk / "ballast").write_bytes(bytes(200_000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("triparty.developer.protect.compiler.check_space", lambda *_: None)
            with pytest.raises(StateError, match=r"No space left.*goes on"):
                protect(str(source), disk / "out", seed=1)
            assert not (disk / "out").exists()
            (disk / "ballast").unlink()
            protect(str(source), disk / "out", seed=1)
        protect(str(source), tmp_path / "whole", seed=1)
        assert files(disk / "out") == files(tmp_path / "whole")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_original_is_never_touched(source: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in source.iterdir()}

    before, folder = state(), source.stat().st_mtime_ns
    cut_off(source, tmp_path / "out", seed=1)
    protect(str(source), tmp_path / "out", seed=1)
    for choices in (Choices.of(scheme="orthogonal"), Choices.of(interface="tokens")):
        protect(str(source), tmp_path / f"{choices.scheme}{choices.interface}", choices=choices)
    with pytest.raises(TripartyError):
        protect(str(source), tmp_path / "out")
    assert state() == before
    assert source.stat().st_mtime_ns == folder


def test_cut_while_tidying_up_for_a_restart(source: Path, tmp_path: Path) -> None:
    part = cut_off(source, tmp_path / "out", seed=1)
    remove = shutil.rmtree

    def cut(path: Path) -> None:
        remove(path)
        raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(CutError):
            protect(str(source), tmp_path / "out", seed=1, restart=True)
    assert part.exists()
    protect(str(source), tmp_path / "out", seed=1)
    protect(str(source), tmp_path / "whole", seed=1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
