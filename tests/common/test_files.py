"""Files that are whole or absent, private from the first byte, inside their folder."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triparty.common.errors import PathError
from triparty.common.files import (
    atomic_file,
    locked,
    make_private_folder,
    replace_folder,
    safe_relative,
    sha256_file,
    write_atomic,
    write_private,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "file"
    write_atomic(target, b"old")
    write_atomic(target, b"new")
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["file"]


class BrokenError(Exception):
    pass


def test_a_failure_inside_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")

    def write() -> None:
        with atomic_file(target) as stream:
            stream.write(b"half of the n")
            stream.flush()
            assert target.read_bytes() == b"old"
            assert len(names(tmp_path)) == 2
            raise BrokenError

    with pytest.raises(BrokenError):
        write()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_failing_disk_leaves_the_old_content(
    call: str, exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    if exists:
        target.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert names(tmp_path) == (["file"] if exists else [])
    assert not exists or target.read_bytes() == b"old"


def test_a_secret_is_private_from_the_first_byte(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    old = os.umask(0)
    try:
        with atomic_file(target, mode=0o600) as stream:
            (part,) = tmp_path.iterdir()
            assert mode(part) == 0o600
            stream.write(b"x")
        write_private(tmp_path / "other", b"x")
        write_atomic(tmp_path / "public", b"x")
    finally:
        os.umask(old)
    assert [mode(tmp_path / name) for name in ("secret", "other", "public")] == [
        0o600,
        0o600,
        0o644,
    ]


def test_a_secret_takes_the_place_of_a_public_file_privately(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(b"public")
    target.chmod(0o644)
    write_private(target, b"secret")
    assert mode(target) == 0o600


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    write_private(link, b"secret")
    assert elsewhere.read_bytes() == b"mine"
    assert not link.is_symlink()


def test_a_private_folder_is_private_even_if_it_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    make_private_folder(folder)
    assert mode(folder) == 0o700


def filled(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "file").write_text(text, encoding="utf-8")
    return folder


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    target = tmp_path / "target"
    replace_folder(filled(tmp_path / "one", "one"), target)
    replace_folder(filled(tmp_path / "two", "two"), target)
    assert (target / "file").read_text(encoding="utf-8") == "two"
    assert names(tmp_path) == ["target"]


def test_a_folder_that_cannot_be_replaced_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = filled(tmp_path / "target", "old")
    new = filled(tmp_path / "new", "new")
    real = os.rename

    def rename(source: Path, destination: Path) -> None:
        if source == new:
            raise OSError(28, "No space left on device")
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space"):
        replace_folder(new, target)
    assert (target / "file").read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["new", "target"]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_hash_is_of_all_bytes(size: int, tmp_path: Path) -> None:
    data = bytes(i % 251 for i in range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(data[:size])
    assert sha256_file(tmp_path / "file") == hashlib.sha256(data[:size]).hexdigest()


@pytest.mark.parametrize(
    "good", ["a", "a/b", ".hidden", "a.b/c-d_e f", "ä/你", "a" * 255, "..a"]
)
def test_plain_relative_paths_pass(good: str) -> None:
    assert safe_relative(good) == PurePosixPath(good)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "/",
        "/etc/passwd",
        "//a",
        "a/../b",
        "../a",
        "a/..",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "C:/a",
        "a\\b",
        "a:b",
        "a\x00b",
        "a\nb",
        "a\x7f",
        "a" * 256,
    ],
)
def test_paths_that_could_leave_are_refused(bad: str) -> None:
    with pytest.raises(PathError, match="not a plain relative path"):
        safe_relative(bad)


PATHS = st.text(st.sampled_from("ab./\\:~\x00\n \u202e")) | st.text()


@given(name=PATHS)
def test_what_passes_stays_inside_and_means_one_file(name: str) -> None:
    try:
        path = safe_relative(name)
    except PathError:
        return
    root = Path("/root/of/an/artifact")
    inside = Path(os.path.normpath(root / path))
    assert inside == root / path
    assert inside.is_relative_to(root)
    assert inside != root
    assert str(path) == name


@given(
    parts=st.lists(st.from_regex(r"[a-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=8)
)
def test_ordinary_names_always_pass(parts: list[str]) -> None:
    assert safe_relative("/".join(parts)).parts == tuple(parts)


@given(name=PATHS, evil=st.sampled_from(["..", ".", "a\\b", "a:b", "a\tb"]))
def test_one_bad_part_spoils_the_path(name: str, evil: str) -> None:
    for path in (f"{name}/{evil}", f"{evil}/{name}", f"x/{evil}/y"):
        with pytest.raises(PathError):
            safe_relative(path)


def test_one_process_at_a_time_is_in_a_locked_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from triparty.common.files import locked\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with locked(folder):\n"
        "    text = (folder / 'log').read_text()\n"
        "    (folder / 'log').write_text(text + 'x')\n"
    )
    (tmp_path / "log").write_text("")
    with locked(tmp_path):
        waiting = [
            subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)
        ]
        time.sleep(0.5)
        assert (tmp_path / "log").read_text() == ""
    assert [process.wait(timeout=60) for process in waiting] == [0] * 4
    assert (tmp_path / "log").read_text() == "xxxx"


def test_who_does_not_wait_is_told(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BlockingIOError), locked(tmp_path, wait=False):
        pytest.fail("let in")
    with locked(tmp_path, wait=False):
        pass


def test_a_lock_whose_folder_is_gone_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removed the folder while the next process waited at its door."""
    import fcntl

    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        flock(descriptor, operation)
        (tmp_path / ".lock").unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(BlockingIOError, match="removed"), locked(tmp_path, wait=False):
        pytest.fail("let in")
