"""How well packets are told apart without any budget: the thesis's offline figures, on ours.

Thesis 2.5.2: necessary and redundant pictures one to one, the threshold is varied, and accuracy
is 1 minus the share of pictures that were necessary and filtered. With half of the pictures
redundant the best filter rate at 90 % accuracy is 60 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.gating_runs import ACCURACY, Plan, traces_of
from benchmarks.gating_traces import CLIPS
from triparty.device.gate.features import EXTENDED, PUBLISHED, FeatureChoice
from triparty.device.gate.fitting import recordings
from triparty.device.gate.fleet import tables
from triparty.device.gate.predictor import Network, Predictor
from triparty.device.gate.report import auc
from triparty.device.gate.traces import Task
from triparty.device.gate.training import Course, Recording, Samples, fit, simulate

Scores = NDArray[np.float64]
Truths = NDArray[np.bool_]
FALSE_POSITIVES = 0.1
MOST_TRIED = 20_000


@dataclass(frozen=True)
class Kind:
    """A way to score packets.

    Attributes:
        name: of it.
        network: `published` or `extended`; None: the last column of the inputs as it is.
        groups: features.
        window: w.
        gating: under which it is trained; all are tried under the same.
    """

    name: str
    network: str | None
    groups: tuple[str, ...]
    window: int = 5
    gating: str = "full"

    def shape(self, tasks: int) -> Network:
        """The network, or the inputs alone in the shape of one."""
        estimator = "paper" if self.network == "published" else "discounted"
        choice = FeatureChoice(self.groups, self.window, estimator)
        return Network(self.network or "extended", choice, tasks)


TEMPORAL = Kind("temporal", None, ("temporal",))
CONTEXTUAL = Kind("contextual", "published", PUBLISHED[:2])
PAPER = Kind("published design", "published", PUBLISHED)
OURS = Kind("ours", "extended", EXTENDED, gating="random")
WAITED = Kind("packets since the last look, under a gate", None, ("age",), gating="random")
PAPER_GATED = replace(PAPER, name="published design, under a gate", gating="random")
KINDS = (TEMPORAL, CONTEXTUAL, PAPER, WAITED, PAPER_GATED, OURS)
"""The first three on full records, as published; the others under a simulated gate. There a
picture is necessary if it differs from the last one that was looked at, which tells more: the
two are to be compared among themselves.
"""


def recorded(clips: Sequence[str], plan: Plan) -> list[Recording]:
    """What training takes of clips."""
    return recordings(tables([one for clip in clips for one in traces_of(clip, plan)]))


@lru_cache(maxsize=256)
def learned(kind: Kind, left_out: str, plan: Plan, share: float = 1.0) -> Predictor | None:
    """A predictor trained without a clip; None where there is nothing to train.

    Args:
        kind: of score.
        left_out: the clip.
        plan: encoding, scene, tasks.
        share: of the samples that it is trained on.
    """
    if kind.network is None:
        return None
    parts = recorded([clip for clip in CLIPS if clip != left_out], plan)
    return taught(kind, parts, plan, share)


def taught(kind: Kind, parts: Sequence[Recording], plan: Plan, share: float = 1.0) -> Predictor:
    """A predictor trained on recordings."""
    copies = 8 if kind.gating == "random" else 1
    total = sum(len(one) for one in parts) * copies
    course = Course(
        gating=kind.gating,  # type: ignore[arg-type]
        epochs=plan.epochs,
        most_samples=max(50, int(share * total)),
    )
    return fit(parts, kind.shape(len(plan.tasks)), course).predictor


def tried(
    kind: Kind, predictor: Predictor | None, parts: Sequence[Recording], plan: Plan
) -> list[tuple[Scores, Truths]]:
    """Scores and truth of each task on recordings that were not trained on.

    Feedback comes from a simulated gate, the same for all kinds that learn under one; the
    published kinds are tried as they are trained, on full records.
    """
    course = Course(gating=kind.gating, copies=4)  # type: ignore[arg-type]
    samples = simulate(parts, kind.shape(len(plan.tasks)), course, np.random.default_rng(7))
    scores = _scores(samples, predictor)
    return [
        (scores[:, min(task, scores.shape[1] - 1)], samples.necessary[:, task] > 0)
        for task in range(len(plan.tasks))
    ]


def _scores(samples: Samples, predictor: Predictor | None) -> Scores:
    if predictor is None:
        return samples.inputs[:, -1:].astype(np.float64)
    return predictor.probabilities(samples.inputs).astype(np.float64)


def balanced(scores: Scores, truth: Truths, seed: int = 0) -> tuple[Scores, Truths] | None:
    """As many necessary as redundant ones; None where one kind is (nearly) absent."""
    rng = np.random.default_rng(seed)
    yes, no = np.flatnonzero(truth), np.flatnonzero(~truth)
    count = min(len(yes), len(no), MOST_TRIED)
    if count < 10:
        return None
    rows = np.concatenate([rng.choice(yes, count, False), rng.choice(no, count, False)])
    return scores[rows], truth[rows]


def filter_rate(scores: Scores, truth: Truths, accuracy: float = ACCURACY) -> float:
    """Largest share that can be filtered, lowest scores first, at an accuracy."""
    order = np.argsort(scores, kind="stable")
    missed = np.cumsum(truth[order]) / len(order)
    allowed = np.flatnonzero(missed <= 1 - accuracy + 1e-12)
    # Equal scores are filtered together or not at all.
    ends = np.append(np.diff(scores[order]) > 0, True)
    useful = allowed[ends[allowed]]
    return float((useful[-1] + 1) / len(order)) if len(useful) else 0.0


def true_positives(scores: Scores, truth: Truths, false: float = FALSE_POSITIVES) -> float:
    """True-positive rate at a false-positive rate."""
    negatives = np.sort(scores[~truth])
    threshold = negatives[min(len(negatives) - 1, int((1 - false) * len(negatives)))]
    return float((scores[truth] > threshold).mean())


def classified(scores: Scores, truth: Truths) -> float:
    """Best share classified right by one threshold, on balanced data."""
    order = np.argsort(scores, kind="stable")
    missed = np.append(0, np.cumsum(truth[order]))
    kept_wrong = (~truth).sum() - np.append(0, np.cumsum(~truth[order]))
    ends = np.concatenate([[True], np.diff(scores[order]) > 0, [True]])
    return float(1 - ((missed + kept_wrong)[ends] / len(order)).min())


@dataclass(frozen=True)
class Told:
    """How well one kind tells necessary packets of one task on one clip.

    Attributes:
        filter_rate: at 90 % accuracy on balanced data.
        accuracy: of the best threshold on balanced data.
        true_positives: at 10 % false positives.
        auc: of the scores.
    """

    filter_rate: float
    accuracy: float
    true_positives: float
    auc: float


def told(scores: Scores, truth: Truths) -> Told | None:
    """The figures, on balanced data; None without enough of both kinds."""
    even = balanced(scores, truth)
    if even is None:
        return None
    return Told(
        filter_rate=filter_rate(*even),
        accuracy=classified(*even),
        true_positives=true_positives(*even),
        auc=auc(*even),
    )


def per_task(kind: Kind, plan: Plan, share: float = 1.0) -> dict[str, list[Told]]:
    """The figures of each task, one for each clip left out in turn."""
    found: dict[str, list[Told]] = {task.name: [] for task in plan.tasks}
    for clip in CLIPS:
        predictor = learned(kind, clip, plan, share)
        results = tried(kind, predictor, recorded([clip], plan), plan)
        for task, (scores, truth) in zip(plan.tasks, results, strict=True):
            one = told(scores, truth)
            if one is not None:
                found[task.name].append(one)
    return found


def residual(plan: Plan) -> dict[str, list[Told]]:
    """The same of the change of size from packet to packet: the residual feature of 2.2.1."""
    found: dict[str, list[Told]] = {task.name: [] for task in plan.tasks}
    for clip in CLIPS:
        for number, task in enumerate(plan.tasks):
            scores, truths = [], []
            for one in recorded([clip], plan):
                answer = one.answer[:, number]
                changed = answer[1:] != answer[:-1]
                truths.append(answer[1:] > 0 if one.sought[number] else changed)
                scores.append(np.abs(np.diff(one.size)))
            figures = told(np.concatenate(scores), np.concatenate(truths))
            if figures is not None:
                found[task.name].append(figures)
    return found


def single(plan: Plan, task: Task) -> Plan:
    """The plan with one task alone."""
    return replace(plan, tasks=(task,))
