"""From traces to a gate: what training takes of them, and the folder that it fills."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from triparty.common.errors import SettingsError
from triparty.device.gate.artifact import Gate, GateTask, TrainingFacts
from triparty.device.gate.features import EXTENDED, PUBLISHED, FeatureChoice
from triparty.device.gate.fleet import Tables, tables
from triparty.device.gate.predictor import KINDS, Network
from triparty.device.gate.traces import Trace
from triparty.device.gate.training import Course, Recording, fit

PARTS = 5  # a trace is cut so that progress can be measured on a part of it
LEAST_PACKETS = 200


def network(kind: str, tasks: int, *, window: int = 5) -> Network:
    """A network with the inputs that belong to it.

    Args:
        kind: `extended` (ours), `published` (with the printed estimator), or `contextual`
            (the published one without feedback, its ablation).
        tasks: heads.
        window: w.

    Raises:
        SettingsError: no such kind.
    """
    if kind not in KINDS:
        raise SettingsError(f"network {kind!r:.40}: expected one of {', '.join(KINDS)}")
    if kind == "extended":
        return Network(kind, FeatureChoice(EXTENDED, window), tasks)
    groups = PUBLISHED if kind == "published" else PUBLISHED[:2]
    return Network("published", FeatureChoice(groups, window, "paper"), tasks)


def recordings(known: Tables, *, parts: int = PARTS) -> list[Recording]:
    """What training takes of traces, each cut into parts at entries.

    Args:
        known: columns of the traces.
        parts: at most so many of each, none much below `LEAST_PACKETS`.
    """
    found = []
    for trace in range(len(known.period)):
        first, last = int(known.base[trace]), int(known.base[trace + 1])
        count = max(1, min(parts, (last - first) // LEAST_PACKETS))
        wanted = np.linspace(first, last, count + 1)[1:-1].astype(np.int64)
        entries = np.flatnonzero(known.entry[first:last]) + first
        cuts = {int(entries[np.abs(entries - place).argmin()]) for place in wanted}
        edges = sorted({first, last, *cuts})
        found += [_recording(known, start, stop) for start, stop in pairwise(edges)]
    return [one for one in found if len(one) > 1]


def fit_gate(traces: Sequence[Trace], kind: str, course: Course, *, window: int = 5) -> Gate:
    """Trains a gate from traces.

    Args:
        traces: with results; their tasks become the gate's heads.
        kind: of network, as `network` takes it.
        course: of the training.
        window: w.

    Raises:
        SettingsError: no trace answers anything, no such kind, or torch is not installed.
        TraceError: a trace without an entry.
    """
    known = tables(traces)
    if not known.tasks:
        raise SettingsError("no trace answers anything: make traces with a --detector")
    parts = recordings(known)
    fitted = fit(parts, network(kind, len(known.tasks), window=window), course)
    facts = TrainingFacts(
        recordings=len(parts),
        samples=fitted.samples,
        epochs=fitted.epochs,
        gating=course.gating,
        seed=course.seed,
        loss=fitted.loss,
        base_rate=fitted.base_rate,
    )
    return Gate(fitted.predictor, tuple(GateTask(name) for name in known.tasks), facts)


def _recording(known: Tables, start: int, stop: int) -> Recording:
    rows = slice(start, stop)
    return Recording(
        time=known.time[rows],
        size=known.size[rows],
        type=known.type[rows],
        reference=known.reference[rows],
        entry=known.entry[rows],
        slice_qp=known.slice_qp[rows],
        answer=known.state[rows],
        sought=known.wanted,
    )
