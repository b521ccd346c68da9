"""What is written is what is read; anything else is one typed error."""

from __future__ import annotations

import json
import stat
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_traces import FREE_B, made_trace, packets_of

from triparty.common.errors import ArtifactError, FormatVersionError, TraceError
from triparty.device.gate.trace_files import TraceWriter, read_trace, write_trace
from triparty.device.gate.traces import Origin, PacketColumns, Results, Task, Trace


def assert_same(one: Trace, other: Trace) -> None:
    assert (one.origin, one.models, one.tasks) == (other.origin, other.models, other.tasks)
    for part in ("packets", "results"):
        for column in fields(getattr(one, part)):
            left = getattr(getattr(one, part), column.name)
            right = getattr(getattr(other, part), column.name)
            assert left.dtype == right.dtype, column.name
            np.testing.assert_array_equal(left, right)


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    trace = made_trace(FREE_B)
    write_trace(trace, tmp_path / "one.npz")
    assert_same(read_trace(tmp_path / "one.npz"), trace)


def test_a_trace_without_results_comes_back(tmp_path: Path) -> None:
    trace = replace(made_trace(), models=(), tasks=(), results=Results.none())
    write_trace(trace, tmp_path / "one.npz")
    assert_same(read_trace(tmp_path / "one.npz"), trace)


def test_only_its_owner_reads_a_trace(tmp_path: Path) -> None:
    write_trace(made_trace(), tmp_path / "one.npz")
    assert stat.S_IMODE((tmp_path / "one.npz").stat().st_mode) == 0o600


@pytest.mark.parametrize("segment_packets", [1, 7, 1000])
def test_segments_together_are_the_trace(tmp_path: Path, segment_packets: int) -> None:
    trace = made_trace(FREE_B, groups=4)
    packets = packets_of(FREE_B, 4, np.random.default_rng(0))
    writer = TraceWriter(
        tmp_path / "live",
        trace.origin,
        trace.models,
        trace.tasks,
        segment_packets=segment_packets,
    )
    costs = trace.packets.cost_ms
    order = {pts: row for row, pts in enumerate(trace.results.pts.tolist())}
    late: list[int] = []
    for packet in packets:
        writer.add(packet)
        writer.cost(packet.number, float(costs[packet.number]))
        late.append(order[packet.pts])
        if len(late) > 3:  # results come some packets after their frame
            add_result(writer, trace, late.pop(0))
    for row in late:
        add_result(writer, trace, row)
    writer.close()
    read = read_trace(tmp_path / "live")
    for column in fields(PacketColumns):
        np.testing.assert_array_equal(
            getattr(read.packets, column.name), getattr(trace.packets, column.name)
        )
    assert sorted(read.results.pts.tolist()) == sorted(trace.results.pts.tolist())
    assert stat.S_IMODE((tmp_path / "live").stat().st_mode) == 0o700
    for segment in (tmp_path / "live").iterdir():
        assert stat.S_IMODE(segment.stat().st_mode) == 0o600


def add_result(writer: TraceWriter, trace: Trace, row: int) -> None:
    results = trace.results
    span = slice(results.first[row], results.first[row + 1])
    writer.result(
        int(results.pts[row]),
        0,
        boxes=results.box[span],
        labels=results.label[span],
        scores=results.score[span],
    )


def test_a_folder_with_a_trace_takes_no_second(tmp_path: Path) -> None:
    trace = made_trace()
    write_trace(trace, tmp_path / "00000000.npz")
    with pytest.raises(TraceError, match="holds a trace already"):
        TraceWriter(tmp_path, trace.origin)


def test_segments_of_two_cameras_do_not_join(tmp_path: Path) -> None:
    trace = made_trace()
    other = replace(trace, origin=replace(trace.origin, camera="another"))
    write_trace(trace, tmp_path / "0.npz")
    write_trace(other, tmp_path / "1.npz")
    with pytest.raises(TraceError, match="different streams"):
        read_trace(tmp_path)


def test_a_part_keeps_the_results_of_its_packets() -> None:
    trace = made_trace(FREE_B)
    part = trace.part(5, 15)
    assert len(part.packets) == len(part.results) == 10
    kept = dict(zip(trace.results.pts.tolist(), np.diff(trace.results.first), strict=True))
    for row, pts in enumerate(part.results.pts.tolist()):
        assert part.results.first[row + 1] - part.results.first[row] == kept[pts]


def test_a_trace_starts_at_its_first_entry() -> None:
    trace = made_trace().part(2, 20)
    assert trace.from_first_entry().packets.entry[0] == 2
    assert len(trace.from_first_entry().packets) == 14
    with pytest.raises(TraceError, match="may start"):
        trace.part(0, 3).from_first_entry()


def break_column(trace: Trace, column: str, place: int, value: float) -> Trace:
    array = getattr(trace.packets, column).copy()
    array[place] = value
    return replace(trace, packets=replace(trace.packets, **{column: array}))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("pts", 0),
        ("time", np.nan),
        ("size", 0),
        ("type", 4),
        ("entry", 3),
        ("temporal_id", -1),
        ("reads", -2),
        ("writes", -2),
        ("cost_ms", -1),
        ("cost_ms", np.inf),
        ("slice_qp", np.inf),
    ],
)
def test_a_value_out_of_range_is_no_trace(column: str, value: float) -> None:
    with pytest.raises(TraceError):
        break_column(made_trace(), column, 3, value)


def test_results_need_their_packet_and_their_model() -> None:
    trace = made_trace()
    with pytest.raises(TraceError, match="none of its packets"):
        replace(trace, results=replace(trace.results, pts=trace.results.pts + 1))
    with pytest.raises(TraceError, match="without a name"):
        replace(trace, models=(), tasks=())
    with pytest.raises(TraceError, match="not in trace"):
        replace(trace, tasks=(Task("people", "another", "count"),))
    with pytest.raises(TraceError, match="follow each other"):
        replace(trace, results=replace(trace.results, first=trace.results.first[::-1]))


@pytest.mark.parametrize(
    "wrong",
    [{"width": 0}, {"height": 1 << 16}, {"fps": 0.0}, {"fps": float("inf")}],
)
def test_an_origin_is_a_video(wrong: dict[str, float]) -> None:
    with pytest.raises(TraceError):
        replace(made_trace().origin, **wrong)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("trace") / "one.npz"
    write_trace(made_trace(FREE_B, groups=3), path)
    return path.read_bytes()


def refused(folder: Path, data: bytes) -> bool:
    path = folder / "fuzzed.npz"
    path.write_bytes(data)
    try:
        read_trace(path)
    except (TraceError, ArtifactError):
        return True
    return False


@given(data=st.data())
def test_damaged_bytes_are_one_error(
    written: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    damaged = bytearray(written)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    refused(tmp_path_factory.getbasetemp(), bytes(damaged))  # a trace or an error, no crash


@given(cut=st.integers(0, 10_000))
def test_a_cut_file_is_refused(
    written: bytes, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert refused(tmp_path_factory.getbasetemp(), written[: min(cut, len(written) - 1)])


def rewritten(source: bytes, folder: Path, **members: bytes) -> Path:
    """The archive with some members replaced, added, or dropped (empty bytes)."""
    path, old = folder / "changed.npz", folder / "source.npz"
    old.write_bytes(source)
    with zipfile.ZipFile(old) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    held |= {f"{name}.npy": data for name, data in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            if data:
                archive.writestr(name, data)
    return path


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def header_of(source: bytes, tmp_path: Path) -> dict[str, object]:
    with zipfile.ZipFile(rewritten(source, tmp_path)) as archive:
        raw = archive.read("header.npy")
    return dict(json.loads(raw[raw.index(b"{", 80) :]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("packet_size", b""),
        ("packet_size", npy(np.arange(3, dtype=np.int64))),
        ("packet_size", npy(np.arange(15, dtype=np.float64))),
        ("packet_size", npy(np.ones((15, 2), dtype=np.int64))),
        ("packet_size", npy(np.array([None] * 15), allow_pickle=True)),
        ("packet_size", npy(np.ones(15, dtype=np.int64))[:-8]),
        ("another", npy(np.ones(15, dtype=np.int64))),
        ("result_first", npy(np.empty(0, dtype=np.int64))),
        ("header", npy(np.frombuffer(b"{}", dtype=np.uint8))),
        ("header", npy(np.frombuffer(b"[" * 5000, dtype=np.uint8))),
        ("header", npy(np.frombuffer(b"\xff\xfe", dtype=np.uint8))),
    ],
)
def test_a_member_that_is_not_documented_is_refused(
    written: bytes, tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(TraceError):
        read_trace(rewritten(written, tmp_path, **{name: content}))


def test_an_untouched_archive_is_read(written: bytes, tmp_path: Path) -> None:
    assert len(read_trace(rewritten(written, tmp_path)).packets) == 15


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": [{"name": "people"}]},
        {"tasks": 3},
        {"models": [3]},
        {"origin": {}},
        {"format": "1"},
        {"format": 0},
        {"more": 1},
    ],
)
def test_a_header_is_read_strictly(
    written: bytes, tmp_path: Path, change: dict[str, object]
) -> None:
    header = json.dumps(header_of(written, tmp_path) | change).encode()
    with pytest.raises(TraceError):
        read_trace(
            rewritten(written, tmp_path, header=npy(np.frombuffer(header, dtype=np.uint8)))
        )


def test_a_newer_format_says_so(written: bytes, tmp_path: Path) -> None:
    header = json.dumps(header_of(written, tmp_path) | {"format": 2}).encode()
    with pytest.raises(FormatVersionError, match="update"):
        read_trace(
            rewritten(written, tmp_path, header=npy(np.frombuffer(header, dtype=np.uint8)))
        )


@pytest.mark.parametrize("name", ["absent.npz", "empty"])
def test_no_trace_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError):
        read_trace(tmp_path / name)


def test_tasks_are_checked() -> None:
    with pytest.raises(TraceError, match="unknown measure"):
        Task("people", "detector", "colour")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="step"):
        Task("people", "detector", "value", step=0)
    with pytest.raises(TraceError, match="characters"):
        Task("", "detector", "count")
    trace = made_trace()
    with pytest.raises(TraceError, match="one name"):
        replace(trace, tasks=(trace.tasks[0], trace.tasks[0]))
    assert Origin("a", "h264", "mp4", 2, 2, 1.0).ungateable is None
