import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from triparty.common import files, sealing, stream
from triparty.common.documents import canonical
from triparty.common.errors import (
    DigestError,
    FileTypeError,
    ManifestError,
    PathError,
    SealError,
    StateError,
)
from triparty.common.folders import describe_files
from triparty.common.sealing import SealingKey, open_sealed, seal_folder, sealing_info
from triparty.common.stream import TAG_BYTES, ChunkReader, ChunkWriter

Mutated = Callable[[bytes], st.SearchStrategy[bytes]]
USE: dict[str, Any] = {
    "device": "ed25519:" + "d" * 64,
    "model": "tiny",
    "version": 2,
    "epoch": 1,
}
CHUNK = 64
HEADER = 4 + 4 + 80


@pytest.fixture(scope="session")
def key() -> SealingKey:
    return SealingKey.from_raw(b"k" * 32)


def _fill(folder: Path) -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "device.json").write_text('{"epoch":1}')
    (folder / "embedding.safetensors").write_bytes(bytes(range(200)))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "tokenizer" / "merges.txt").write_text("a b\n")
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _fill(tmp_path / "plain")


@pytest.fixture
def sealed(folder: Path, key: SealingKey, tmp_path: Path) -> Path:
    seal_folder(folder, tmp_path / "bundle.sealed", recipient=key.public, **USE)
    return tmp_path / "bundle.sealed"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK_BYTES", CHUNK)


@pytest.fixture
def refused(key: SealingKey, tmp_path: Path) -> Callable[[bytes], None]:
    """Expects that a sealed file does not open and that nothing is left of the attempt."""
    room = tmp_path / "room"

    def check(data: bytes) -> None:
        room.mkdir(exist_ok=True)
        (room / "bundle.sealed").write_bytes(data)
        with pytest.raises(SealError):
            open_sealed(room / "bundle.sealed", room / "opened", key, **USE)
        assert [path.name for path in room.iterdir()] == ["bundle.sealed"]

    return check


def test_open_gives_back_what_was_sealed(
    folder: Path, sealed: Path, key: SealingKey, tmp_path: Path
) -> None:
    open_sealed(sealed, tmp_path / "opened", key, **USE)
    assert _content(tmp_path / "opened") == _content(folder)
    for path in (tmp_path / "opened").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE((tmp_path / "opened").stat().st_mode) == 0o700


@pytest.mark.usefixtures("small_chunks")
def test_many_chunks(folder: Path, key: SealingKey, tmp_path: Path) -> None:
    seal_folder(folder, tmp_path / "bundle.sealed", recipient=key.public, **USE)
    assert (tmp_path / "bundle.sealed").stat().st_size > HEADER + 5 * (CHUNK + TAG_BYTES)
    open_sealed(tmp_path / "bundle.sealed", tmp_path / "opened", key, **USE)
    assert _content(tmp_path / "opened") == _content(folder)


def test_the_ciphertext_shows_nothing(folder: Path, sealed: Path) -> None:
    data = sealed.read_bytes()
    for plain in (b"device.json", b"epoch", bytes(range(100, 132)), USE["model"].encode()):
        assert plain not in data


def test_sealing_twice_gives_unrelated_files(
    folder: Path, sealed: Path, key: SealingKey, tmp_path: Path
) -> None:
    seal_folder(folder, tmp_path / "again", recipient=key.public, **USE)
    a, b = sealed.read_bytes(), (tmp_path / "again").read_bytes()
    assert len(a) == len(b)
    assert a[8:40] != b[8:40]  # encapsulated keys
    assert a[HEADER : HEADER + 32] != b[HEADER : HEADER + 32]


def test_another_key_does_not_open(sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="grant the model again"):
        open_sealed(sealed, tmp_path / "opened", SealingKey.generate(), **USE)
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"device": "ed25519:" + "e" * 64},
        {"model": "tinx"},
        {"model": ""},
        {"version": 1},
        {"version": 3},
        {"epoch": 2},
        {"version": 1, "epoch": 2},
    ],
)
def test_another_use_does_not_open(
    sealed: Path, key: SealingKey, tmp_path: Path, changed: dict[str, Any]
) -> None:
    with pytest.raises(SealError):
        open_sealed(sealed, tmp_path / "opened", key, **{**USE, **changed})
    assert not (tmp_path / "opened").exists()


def test_info_is_unambiguous() -> None:
    a = sealing_info(device="ab", model="c", version=1, epoch=2)
    assert a != sealing_info(device="a", model="bc", version=1, epoch=2)
    assert a != sealing_info(device="ab", model="c", version=2, epoch=1)


@pytest.mark.usefixtures("small_chunks")
def test_truncation_anywhere_that_matters(
    folder: Path, key: SealingKey, tmp_path: Path, refused: Callable[[bytes], None]
) -> None:
    seal_folder(folder, tmp_path / "b", recipient=key.public, **USE)
    data = (tmp_path / "b").read_bytes()
    step = CHUNK + TAG_BYTES
    boundaries = list(range(HEADER, len(data), step))
    assert len(boundaries) > 5
    for cut in (0, 4, 8, 40, *boundaries, *(at + 1 for at in boundaries), len(data) - 1):
        refused(data[:cut])


@pytest.mark.usefixtures("small_chunks")
def test_swapped_repeated_and_dropped_chunks(
    folder: Path, key: SealingKey, tmp_path: Path, refused: Callable[[bytes], None]
) -> None:
    seal_folder(folder, tmp_path / "b", recipient=key.public, **USE)
    data = (tmp_path / "b").read_bytes()
    step = CHUNK + TAG_BYTES
    head, body = data[:HEADER], data[HEADER:]
    chunks = [body[at : at + step] for at in range(0, len(body), step)]
    first, second, *rest = chunks
    for changed in (
        [second, first, *rest],
        [first, first, *rest],
        [first, *rest],
        [second, *rest],
        [*chunks, chunks[-1]],
        [*chunks, b"x"],
        [first, rest[-1]],
    ):
        refused(head + b"".join(changed))


def test_chunks_of_another_bundle(
    folder: Path,
    sealed: Path,
    key: SealingKey,
    tmp_path: Path,
    refused: Callable[[bytes], None],
) -> None:
    seal_folder(folder, tmp_path / "other", recipient=key.public, **USE)
    refused(sealed.read_bytes()[:HEADER] + (tmp_path / "other").read_bytes()[HEADER:])


@given(st.data())
@settings(max_examples=60)
def test_no_changed_sealed_file_opens(
    tmp_path_factory: pytest.TempPathFactory,
    key: SealingKey,
    mutated: Mutated,
    data: st.DataObject,
) -> None:
    room = tmp_path_factory.mktemp("room")
    seal_folder(_fill(room / "plain"), room / "sealed", recipient=key.public, **USE)
    whole = (room / "sealed").read_bytes()
    (room / "sealed").write_bytes(data.draw(mutated(whole)))
    with pytest.raises(SealError):
        open_sealed(room / "sealed", room / "opened", key, **USE)
    assert sorted(path.name for path in room.iterdir()) == ["plain", "sealed"]


@pytest.mark.parametrize("data", [b"", b"TPS1", b"TPS2" + b"\0" * 99, b"\0" * 4096])
def test_other_files_do_not_open(data: bytes, refused: Callable[[bytes], None]) -> None:
    refused(data)


def test_an_absent_file(key: SealingKey, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="cannot read the bundle"):
        open_sealed(tmp_path / "absent", tmp_path / "opened", key, **USE)


def test_an_interrupted_open_leaves_nothing_new(
    sealed: Path, key: SealingKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sealed(sealed, tmp_path / "opened", key, **USE)
    before, names = _content(tmp_path / "opened"), sorted(tmp_path.iterdir())
    calls: list[int] = []

    def interrupt(reader: ChunkReader, folder: Path, entry: object) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        write_file(reader, folder, entry)  # type: ignore[arg-type]

    write_file = sealing._write_file
    monkeypatch.setattr(sealing, "_write_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_sealed(sealed, tmp_path / "opened", key, **USE)
    assert calls
    assert _content(tmp_path / "opened") == before
    assert sorted(tmp_path.iterdir()) == names


def test_opening_again_replaces_the_whole_folder(
    sealed: Path, key: SealingKey, folder: Path, tmp_path: Path
) -> None:
    opened = tmp_path / "opened"
    opened.mkdir()
    (opened / "stale.json").write_text("old")
    open_sealed(sealed, opened, key, **USE)
    assert _content(opened) == _content(folder)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_interrupted_seal_leaves_nothing(
    folder: Path, key: SealingKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(writer: ChunkWriter) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ChunkWriter, "finish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        seal_folder(folder, tmp_path / "out" / "bundle.sealed", recipient=key.public, **USE)
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_changes_meanwhile(
    folder: Path, key: SealingKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe = describe_files

    def describe_then_change(*args: Any, **options: Any) -> Any:
        entries = describe(*args, **options)
        (folder / "device.json").write_text('{"epoch":2}')
        return entries

    monkeypatch.setattr(sealing, "describe_files", describe_then_change)
    with pytest.raises(StateError, match="changed while it was sealed"):
        seal_folder(folder, tmp_path / "bundle.sealed", recipient=key.public, **USE)
    assert not (tmp_path / "bundle.sealed").exists()


@pytest.mark.parametrize("recipient", [b"", b"x" * 31, b"x" * 33, bytes(32)])
def test_unusable_recipients(folder: Path, tmp_path: Path, recipient: bytes) -> None:
    with pytest.raises(SealError, match="no usable X25519 key"):
        seal_folder(folder, tmp_path / "bundle.sealed", recipient=recipient, **USE)


def test_pickles_and_links_are_not_sealed(
    folder: Path, key: SealingKey, tmp_path: Path
) -> None:
    (folder / "a.json").symlink_to("/etc/hostname")
    with pytest.raises(PathError):
        seal_folder(folder, tmp_path / "b", recipient=key.public, **USE)
    (folder / "a.json").unlink()
    (folder / "a.pt").write_bytes(b"")
    with pytest.raises(FileTypeError):
        seal_folder(folder, tmp_path / "b", recipient=key.public, **USE)


def _crafted(key: SealingKey, index: bytes, content: bytes) -> bytes:
    """A bundle that is sealed as it should be, around an index that is not."""
    content_key = b"c" * 32
    public = X25519PublicKey.from_public_bytes(key.public)
    sealed_key = sealing._suite().encrypt(content_key, public, sealing_info(**USE))
    sink = io.BytesIO()
    sink.write(sealing._HEADER.pack(sealing.MAGIC, len(sealed_key)) + sealed_key)
    writer = ChunkWriter(content_key, sink)
    writer.write(index + content)
    writer.finish()
    return sink.getvalue()


def _index(*entries: object) -> bytes:
    data = canonical(list(entries))
    return len(data).to_bytes(4, "little") + data


ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("index", "content", "error"),
    [
        (_index({"path": "../a.json", "sha256": ABC, "size": 3}), b"abc", PathError),
        (_index({"path": "/a.json", "sha256": ABC, "size": 3}), b"abc", PathError),
        (_index({"path": "a.pt", "sha256": ABC, "size": 3}), b"abc", FileTypeError),
        (_index({"path": "a.json", "sha256": ABC, "size": 3}), b"abd", DigestError),
        (_index({"path": "a.json", "sha256": ABC, "size": 3}), b"abcd", SealError),
        (_index({"path": "a.json", "sha256": ABC, "size": 3}), b"ab", SealError),
        (_index({"path": "a.json", "sha256": ABC, "size": 2**50}), b"abc", SealError),
        (_index({"path": "a.json", "sha256": ABC}), b"abc", ManifestError),
        (_index(), b"", ManifestError),
        (b"\x02\0\0\0{}", b"", ManifestError),
        (b"\xff\xff\xff\xff[]", b"", SealError),
        (b"\0", b"", SealError),
        (b"", b"", SealError),
    ],
)
def test_hostile_indexes(
    key: SealingKey, tmp_path: Path, index: bytes, content: bytes, error: type[Exception]
) -> None:
    (tmp_path / "sealed").write_bytes(_crafted(key, index, content))
    with pytest.raises(error):
        open_sealed(tmp_path / "sealed", tmp_path / "opened", key, **USE)
    assert [path.name for path in tmp_path.iterdir()] == ["sealed"]


def test_the_crafted_bundle_opens_when_it_is_honest(key: SealingKey, tmp_path: Path) -> None:
    index = _index({"path": "a.json", "sha256": ABC, "size": 3})
    (tmp_path / "sealed").write_bytes(_crafted(key, index, b"abc"))
    open_sealed(tmp_path / "sealed", tmp_path / "opened", key, **USE)
    assert _content(tmp_path / "opened") == {"a.json": b"abc"}


@given(st.lists(st.binary(max_size=90), max_size=6), st.integers(1, 40))
def test_a_reader_reads_what_the_writer_was_given(parts: list[bytes], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "CHUNK_BYTES", 32)
        sink = io.BytesIO()
        writer = ChunkWriter(b"k" * 32, sink)
        for part in parts:
            writer.write(part)
        writer.finish()
        reader = ChunkReader(b"k" * 32, io.BytesIO(sink.getvalue()))
        read = b"".join(iter(lambda: reader.read(size), b""))
    assert read == b"".join(parts)


def test_a_stream_has_a_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_CHUNKS", 1)
    monkeypatch.setattr(stream, "CHUNK_BYTES", 4)
    writer = ChunkWriter(b"k" * 32, io.BytesIO())
    writer.write(b"12345")
    with pytest.raises(SealError, match="at most 1 chunks"):
        writer.finish()


def test_memory_does_not_grow_with_the_bundle(key: SealingKey, tmp_path: Path) -> None:
    import tracemalloc

    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "big.safetensors").write_bytes(bytes(24 << 20))
    tracemalloc.start()
    try:
        seal_folder(tmp_path / "plain", tmp_path / "b", recipient=key.public, **USE)
        open_sealed(tmp_path / "b", tmp_path / "opened", key, **USE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * files.CHUNK_BYTES


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_key_files(key: SealingKey, tmp_path: Path, passphrase: str | None) -> None:
    key.save(tmp_path / "sealing.key", passphrase=passphrase)
    assert stat.S_IMODE((tmp_path / "sealing.key").stat().st_mode) == 0o600
    again = SealingKey.load(tmp_path / "sealing.key", passphrase=passphrase)
    assert (again.public, again.public_text) == (key.public, key.public_text)
    assert repr(key) == "SealingKey()"
