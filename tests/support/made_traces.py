"""Traces with made-up packets and results, of every group structure that replay must know."""

from __future__ import annotations

import numpy as np

from triparty.device.gate.traces import Origin, PacketColumns, ResultsBuilder, Task, Trace
from triparty.device.streams.packets import Entry, Packet, Picture, PictureType

PEOPLE, WHERE, UNUSUAL = (
    Task("people", "detector", "count", classes=(0,)),
    Task("where", "detector", "boxes"),
    Task("unusual", "detector", "anomaly", classes=(7,)),
)
# A group in decode order: (place in presentation order, letter, whether others refer to it).
Group = tuple[tuple[int, str, bool], ...]
ONLY_P: Group = tuple((i, "I" if i == 0 else "P", True) for i in range(6))
FREE_B: Group = (
    (0, "I", True),
    (3, "P", True),
    (1, "B", False),
    (2, "B", False),
    (4, "P", True),
)
PYRAMID: Group = (
    (0, "I", True),
    (4, "P", True),
    (2, "B", True),
    (1, "B", False),
    (3, "B", False),
    (5, "P", True),
)
DEEP: Group = (
    (0, "I", True),
    (4, "P", True),
    (2, "B", True),
    (1, "B", False),
    (3, "B", False),
    (8, "P", True),
    (6, "B", True),
    (5, "B", False),
    (7, "B", False),
)
INTRA: Group = ((0, "I", True),)


def packets_of(
    group: Group, groups: int, rng: np.random.Generator, *, fps: float = 25.0
) -> list[Packet]:
    """`groups` groups of pictures one after the other, in decode order."""
    made: list[Packet] = []
    for g in range(groups):
        for place, letter, reference in group:
            index = g * len(group) + place
            picture = Picture(
                type=PictureType[letter],
                reference=reference,
                entry=Entry.CLEAN if letter == "I" else Entry.NONE,
                slice_qp=int(rng.integers(20, 40)) if rng.random() < 0.9 else None,
            )
            size = int(
                rng.integers(5_000, 20_000) if letter == "I" else rng.integers(50, 5_000)
            )
            time = index / fps
            made.append(Packet(len(made), size, index * 512, time, time, picture))
    return made


def made_trace(
    group: Group = ONLY_P,
    groups: int = 8,
    seed: int = 0,
    *,
    fps: float = 25.0,
    tasks: tuple[Task, ...] = (PEOPLE, WHERE, UNUSUAL),
) -> Trace:
    """A trace whose people come and go in spells of some frames."""
    rng = np.random.default_rng(seed)
    packets = packets_of(group, groups, rng, fps=fps)
    results = ResultsBuilder()
    count = 0
    for packet in sorted(packets, key=lambda one: one.pts):
        if rng.random() < 0.3:
            count = int(rng.integers(0, 3))
        corner = rng.random((count, 2)) * 0.5
        boxes = np.concatenate([corner, corner + 0.3], axis=1)
        labels = rng.choice([0, 7], size=count, p=[0.8, 0.2])
        results.add(packet.pts, 0, boxes=boxes, labels=labels, value=float(count))
    costs = [0.3 + 0.07 * packet.size / 1000 for packet in packets]
    return Trace(
        Origin("made", "h264", "mp4", 640, 360, fps, note="made for tests"),
        PacketColumns.of(packets, costs),
        ("detector",),
        tasks,
        results.build(),
    )
