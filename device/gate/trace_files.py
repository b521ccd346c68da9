"""The file form of traces: an npz archive, or a folder of such segments; docs/traces.md.

Written with mode 0600. Read strictly: only the documented members, with the documented element
types and shapes, no pickle, sizes bounded before anything is allocated.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import FormatVersionError, TraceError
from triparty.common.files import PRIVATE_MODE, atomic_file, make_private_folder
from triparty.device.gate.traces import (
    Origin,
    PacketColumns,
    Results,
    ResultsBuilder,
    Task,
    Trace,
    join_packets,
    join_results,
)
from triparty.device.streams.packets import Packet

FORMAT = 1
MAX_FILE_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 20
MAX_SEGMENTS = 100_000
SUFFIX = ".npz"
# Element type and the lengths of the axes after the first, by member.
_MEMBERS: dict[str, tuple[str, tuple[int, ...]]] = {
    "header": ("|u1", ()),
    "packet_pts": ("<i8", ()),
    "packet_time": ("<f8", ()),
    "packet_size": ("<i8", ()),
    "packet_type": ("|i1", ()),
    "packet_reference": ("|b1", ()),
    "packet_entry": ("|i1", ()),
    "packet_leading": ("|b1", ()),
    "packet_shown": ("|b1", ()),
    "packet_temporal_id": ("|i1", ()),
    "packet_slice_qp": ("<f4", ()),
    "packet_reads": ("<i8", ()),
    "packet_writes": ("<i8", ()),
    "packet_cost_ms": ("<f4", ()),
    "result_pts": ("<i8", ()),
    "result_model": ("<i2", ()),
    "result_value": ("<f4", ()),
    "result_first": ("<i8", ()),
    "result_box": ("<f4", (4,)),
    "result_label": ("<i4", ()),
    "result_score": ("<f4", ()),
}


@dataclass(frozen=True, eq=False)
class _Segment:
    origin: Origin
    models: tuple[str, ...]
    tasks: tuple[Task, ...]
    packets: PacketColumns
    results: Results


def write_trace(trace: Trace, path: Path) -> None:
    """Writes a trace as one file, whole or not at all, readable by its owner alone.

    Args:
        trace: to be written.
        path: of the file; ends in `.npz`.
    """
    _write(path, trace.origin, trace.models, trace.tasks, trace.packets, trace.results)


def read_trace(path: Path) -> Trace:
    """Reads a trace: one file, or a folder of segments.

    Args:
        path: what `write_trace` or `TraceWriter` wrote.

    Raises:
        TraceError: absent, damaged, or not a trace.
        FormatVersionError: written by a newer triparty.
    """
    if path.is_dir():
        names = sorted(entry for entry in path.iterdir() if entry.suffix == SUFFIX)
        if not 0 < len(names) <= MAX_SEGMENTS:
            raise TraceError(f"{path}: a folder of traces has 1 to {MAX_SEGMENTS} segments")
        return _joined(path, [_read(name) for name in names])
    return _joined(path, [_read(path)])


class TraceWriter:
    """Writes a live stream's trace segment by segment, as packets and results come.

    One writer a stream and connection, owned by one thread. A result may come long after its
    packet: it goes into the segment that is open then. What was not yet flushed is lost with
    the process; segments that are on disk are whole.

    Args:
        folder: made if absent (mode 0700); must not hold segments yet.
        origin: where the stream comes from.
        models: names of the models whose results are held.
        tasks: what the results answer.
        segment_packets: how many packets until a segment is written.
    """

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        models: tuple[str, ...] = (),
        tasks: tuple[Task, ...] = (),
        *,
        segment_packets: int = 10_000,
    ) -> None:
        """Makes the folder.

        Raises:
            TraceError: the folder holds a trace already.
        """
        make_private_folder(folder)
        if any(entry.suffix == SUFFIX for entry in folder.iterdir()):
            raise TraceError(f"{folder} holds a trace already: write to another folder")
        self._folder = folder
        self._origin, self._models, self._tasks = origin, models, tasks
        self._segment_packets = segment_packets
        self._segments = 0
        self._packets: list[Packet] = []
        self._costs: dict[int, float] = {}
        self._results = ResultsBuilder()

    def add(self, packet: Packet) -> None:
        """Adds the next packet in decode order; its bytes are not kept."""
        if len(self._packets) >= self._segment_packets:
            self.flush()
        self._packets.append(
            Packet(
                packet.number,
                packet.size,
                packet.pts,
                packet.time,
                packet.arrival,
                packet.picture,
            )
        )

    def cost(self, number: int, cost_ms: float) -> None:
        """Notes what decoding a packet cost; dropped if its segment is written already."""
        self._costs[number] = cost_ms

    def result(self, pts: int, model: int, **what: Any) -> None:
        """Adds what a model saw; see `ResultsBuilder.add`."""
        self._results.add(pts, model, **what)

    def flush(self) -> None:
        """Writes what came since the last segment, if anything did."""
        if not self._packets and not len(self._results):
            return
        costs = [self._costs.get(packet.number, math.nan) for packet in self._packets]
        _write(
            self._folder / f"{self._segments:08d}{SUFFIX}",
            self._origin,
            self._models,
            self._tasks,
            PacketColumns.of(self._packets, costs),
            self._results.build(),
        )
        self._segments += 1
        self._packets, self._costs, self._results = [], {}, ResultsBuilder()

    def close(self) -> None:
        """Writes the last segment."""
        self.flush()


def _write(
    path: Path,
    origin: Origin,
    models: tuple[str, ...],
    tasks: tuple[Task, ...],
    packets: PacketColumns,
    results: Results,
) -> None:
    header = {
        "format": FORMAT,
        "origin": asdict(origin),
        "models": list(models),
        "tasks": [asdict(task) for task in tasks],
    }
    members: dict[str, NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    }
    for name, (kind, _) in _MEMBERS.items():
        group, _, column = name.partition("_")
        if group != "header":
            source = packets if group == "packet" else results
            members[name] = np.asarray(getattr(source, column), dtype=kind)
    with atomic_file(path, mode=PRIVATE_MODE) as stream:
        np.savez_compressed(stream, allow_pickle=False, **members)


def _joined(path: Path, segments: Sequence[_Segment]) -> Trace:
    first = segments[0]
    known = (first.origin, first.models, first.tasks)
    for segment in segments[1:]:
        if (segment.origin, segment.models, segment.tasks) != known:
            raise TraceError(f"{path}: its segments come from different streams or models")
    packets = join_packets([segment.packets for segment in segments])
    results = join_results([segment.results for segment in segments])
    try:
        return Trace(first.origin, packets, first.models, first.tasks, results)
    except TraceError as error:
        raise TraceError(f"{path}: {error.message}") from error


def _read(path: Path) -> _Segment:
    try:
        size = path.stat().st_size
        if not path.is_file() or not 0 < size <= MAX_FILE_BYTES:
            raise TraceError(f"{path}: expected a file of 1 to {MAX_FILE_BYTES} bytes")
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such trace") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise TraceError(f"{path}: not a trace, or a damaged one ({error})") from error
    return _segment(path, members)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    infos = {info.filename: info for info in archive.infolist()}
    expected = {name + ".npy" for name in _MEMBERS}
    if len(archive.infolist()) != len(infos) or set(infos) != expected:
        odd = sorted(set(infos) ^ expected)[:3]
        raise TraceError(f"{path}: not a trace of format {FORMAT}; members differ: {odd}")
    if sum(info.file_size for info in infos.values()) > MAX_FILE_BYTES:
        raise TraceError(f"{path}: unpacks to more than {MAX_FILE_BYTES} bytes")
    return {name: _array(path, archive, name) for name in _MEMBERS}


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    kind, rest = _MEMBERS[name]
    data = archive.read(name + ".npy")
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise TraceError(f"{path}: member '{name}' has an unknown array version {version}")
    shape, order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.dtype(kind) or order or shape[1:] != rest or len(shape) != 1 + len(rest):
        raise TraceError(f"{path}: member '{name}' is not an array of {kind}")
    body = data[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise TraceError(f"{path}: member '{name}' is cut short or too long")
    return np.frombuffer(body, dtype=dtype).reshape(shape).copy()


def _segment(path: Path, members: Mapping[str, NDArray[Any]]) -> _Segment:
    origin, models, tasks = _header(path, members["header"].tobytes())
    packets = {
        name.removeprefix("packet_"): array
        for name, array in members.items()
        if name.startswith("packet_")
    }
    results = {
        name.removeprefix("result_"): array
        for name, array in members.items()
        if name.startswith("result_")
    }
    if not len(results["first"]):
        raise TraceError(f"{path}: member 'result_first' is empty")
    return _Segment(origin, models, tasks, PacketColumns(**packets), Results(**results))


def _header(path: Path, data: bytes) -> tuple[Origin, tuple[str, ...], tuple[Task, ...]]:
    if len(data) > MAX_HEADER_BYTES:
        raise TraceError(f"{path}: a header of {len(data)} bytes")
    try:
        header = json.loads(data.decode())
        if not isinstance(header, dict) or not isinstance(header.get("format"), int):
            raise TraceError(f"{path}: its header names no format")
        if header["format"] > FORMAT:
            raise FormatVersionError(
                f"{path}: a trace of format {header['format']}; this triparty reads "
                f"{FORMAT}: update it"
            )
        if header.keys() != {"format", "origin", "models", "tasks"} or header["format"] < 1:
            raise TraceError(f"{path}: its header has unknown or missing members")
        origin = Origin(**_typed(path, header["origin"], _ORIGIN))
        models = tuple(_text(path, name) for name in _list(path, header["models"]))
        tasks = tuple(
            Task(**_typed(path, task, _TASK)) for task in _list(path, header["tasks"])
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise TraceError(f"{path}: its header is not JSON ({error})") from error
    return origin, models, tasks


_NUMBER = (int, float)
_ORIGIN: dict[str, tuple[type, ...]] = {
    "camera": (str,),
    "codec": (str,),
    "container": (str,),
    "width": (int,),
    "height": (int,),
    "fps": _NUMBER,
    "note": (str,),
    "ungateable": (str, type(None)),
}
_TASK: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "model": (str,),
    "measure": (str,),
    "classes": (list,),
    "step": _NUMBER,
}


def _typed(path: Path, value: Any, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise TraceError(f"{path}: its header has unknown or missing members")
    for name, expected in kinds.items():
        if not isinstance(value[name], expected) or isinstance(value[name], bool):
            raise TraceError(f"{path}: '{name}' in its header has the wrong type")
    if "classes" in value:
        classes = value["classes"]
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in classes):
            raise TraceError(f"{path}: 'classes' in its header are not whole numbers")
        return value | {"classes": tuple(classes)}
    return value


def _list(path: Path, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TraceError(f"{path}: its header lacks a list")
    return value


def _text(path: Path, value: Any) -> str:
    if not isinstance(value, str):
        raise TraceError(f"{path}: the name of a model is not text")
    return value
