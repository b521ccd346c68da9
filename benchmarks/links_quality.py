"""How good links are by the share of rows that they learn from, beside distillation (fig. 5.5).

A share is of all rows, as in the thesis; the rows that judge are of other stretches of the
clips, of motion and of sounds (`links_sensors.py`). The distilled student is the thesis's: two
convolutions on the input, of frames a small picture, trained on the target's outputs on the
same rows. `constant` always says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import Case, Effort, case
from benchmarks.links_data import SPECS as CLIPS
from benchmarks.links_data import Workload, frames
from benchmarks.links_sensors import MOTION, SOUNDS, motion, small_network, sounds
from triparty.common.links.design import default_design
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.features import activate, constant
from triparty.common.links.losses import row_losses
from triparty.common.links.metrics import score
from triparty.common.links.pairs import correlated_number, dependences
from triparty.common.links.recipe import Recipe
from triparty.common.links.specs import Outputs, Vec
from triparty.common.links.training import Fitted, fit_link
from triparty.common.links.weighing import fitted_ensemble

SHARES = (0.01, 0.05, 0.10, 0.20, 0.48)
FEW = (0.01, 0.10, 0.48)
PAIRS = (("tags", "count"), ("scene", "count"), ("face", "person"), ("tags", "person"),
         ("count", "tags"), ("tags", "scene"))  # fmt: skip
SENSORS = (("moving", "activity"), ("activity", "pace"), ("pace", "moving"),
           ("activity", "moving"), ("events", "sound"), ("events", "alarm"),
           ("sound", "alarm"), ("sound", "events"))  # fmt: skip
SPECS = CLIPS | MOTION | SOUNDS
DISTILLED = ("count", "person", "scene", "activity", "pace", "sound", "alarm")
STILL = ("count", "person", "tags", "scene", *MOTION, *SOUNDS)
SEEDS = 3
ENSEMBLE = ("count", ("tags", "scene", "face"))
_PASSES, _RATE = 30, 1e-3

Rows = NDArray[np.int64]


def work_of(name: str) -> Workload:
    """The workload that a model belongs to."""
    for made, specs in ((frames, CLIPS), (motion, MOTION), (sounds, SOUNDS)):
        if name in specs:
            return made()
    raise KeyError(name)


def learned_rows(work: Workload, share: float, seed: int) -> tuple[Rows, Rows]:
    """Rows to learn from, so many of all, and those to judge by."""
    learned, judged = work.split(seed)
    return learned[: max(8, round(share * len(work.recorded)))], judged


@lru_cache(maxsize=512)
def linked(source: str, target: str, share: float, seed: int) -> Fitted:
    """A link from one model to another."""
    work = work_of(target)
    rows, _ = learned_rows(work, share, seed)
    outputs = work.recorded.outputs
    design = default_design(SPECS[source], SPECS[target])
    return fit_link(design, outputs[source][rows], outputs[target][rows], Recipe(seed=seed))


def link_score(source: str, target: str, share: float, seed: int) -> float:
    """Its metric on other rows."""
    work = work_of(target)
    _, judged = learned_rows(work, share, seed)
    told = linked(source, target, share, seed).link.predict(
        work.recorded.outputs[source][judged]
    )
    return score(SPECS[target], told, work.recorded.outputs[target][judged]).value


def constant_score(target: str, share: float, seed: int) -> float:
    """The same of always saying what does best on the rows that were learnt from."""
    work = work_of(target)
    rows, judged = learned_rows(work, share, seed)
    outputs = work.recorded.outputs[target]
    still = np.broadcast_to(constant(SPECS[target], outputs[rows]), outputs[judged].shape)
    return score(SPECS[target], still, outputs[judged]).value


@lru_cache(maxsize=64)
def student_score(target: str, share: float, seed: int) -> float:
    """The same of a student that is distilled from the target on inputs."""
    import torch

    work = work_of(target)
    rows, judged = learned_rows(work, share, seed)
    spec = SPECS[target]
    outputs = work.recorded.outputs[target]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        student = small_network(work.inputs.shape[1:], spec.logits)
        optimizer = torch.optim.Adam(student.parameters(), lr=_RATE)
        inputs, said = torch.from_numpy(work.inputs[rows]), torch.from_numpy(outputs[rows])
        for _ in range(_PASSES):
            for batch in torch.split(
                torch.randperm(len(rows)), min(32, max(4, len(rows) // 8))
            ):
                optimizer.zero_grad()
                row_losses(spec, student(inputs[batch]), said[batch]).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        with torch.no_grad():
            logits = torch.cat(
                [
                    student(torch.from_numpy(work.inputs[part]))
                    for part in np.array_split(judged, 8)
                ]
            ).numpy()
    return score(spec, _as_outputs(spec, logits), outputs[judged]).value


def _as_outputs(spec: Any, logits: Outputs) -> Outputs:
    if not isinstance(spec, Vec):
        raise TypeError("a student has a vector to say")
    return activate(spec, logits)


@lru_cache(maxsize=16)
def together(share: float, seed: int) -> Ensemble:
    """The ensemble of several sources."""
    target, sources = ENSEMBLE
    work = work_of(target)
    rows, _ = learned_rows(work, share, seed)
    fitted = {source: linked(source, target, share, seed) for source in sources}
    said = work.recorded.outputs[target][rows]
    return fitted_ensemble(target, SPECS[target], fitted, said, Recipe(seed=seed))


def ensemble_gain(share: float, seed: int) -> float:
    """Accuracy of the ensemble above that of its best source alone."""
    target, sources = ENSEMBLE
    work = work_of(target)
    _, judged = learned_rows(work, share, seed)
    outputs = {name: work.recorded.outputs[name][judged] for name in sources}
    told = together(share, seed).predict(outputs).outputs
    value = score(SPECS[target], told, work.recorded.outputs[target][judged]).value
    return value - max(link_score(one, target, share, seed) for one in sources)


def rank_agreement() -> float:
    """Spearman correlation of dependence and gain over constant, over all pairs at 10 %."""
    found = dependences(frames().recorded)
    return _ranked([found[pair] for pair in PAIRS])


def pearson_agreement() -> float:
    """The same of the thesis's number: Pearson correlation of one number of each output."""
    recorded = frames().recorded
    number = {name: correlated_number(CLIPS[name], recorded.outputs[name]) for name in CLIPS}
    return _ranked([abs(np.corrcoef(number[a], number[b])[0, 1]) for a, b in PAIRS])


def _ranked(found: list[float]) -> float:
    """With the share of what is left of the constant's error that links at 10 % take away."""
    gains = []
    for source, target in PAIRS:
        value = np.mean([link_score(source, target, 0.1, seed) for seed in range(2)])
        still = np.mean([constant_score(target, 0.1, seed) for seed in range(2)])
        gains.append((value - still) / (1 - still))
    ranks = [np.argsort(np.argsort(values)) for values in (found, gains)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def seeds(effort: Effort) -> range:
    """Two for a short form, else three."""
    return range(2 if effort.quick else SEEDS)


def percent(
    name: str, make: Callable[[int], float], *, reference: str | None = None,
    target: float | None = None,
) -> Case:  # fmt: skip
    """A case that is a share by seed."""

    def runs(effort: Effort) -> Iterable[float]:
        return [100 * make(seed) for seed in seeds(effort)]

    return case(name, unit="%", better="higher", target=target, reference=reference)(runs)


def _link(pair: tuple[str, str], share: float) -> Case:
    source, target = pair
    references = {
        ("face", "person", 0.48): "thesis table 5.3, face to person: IoU 58.5",
        ("face", "person", 0.01): "thesis fig. 5.5: 1 % already gives a useful link",
    }
    return percent(
        f"{source} to {target}, {SPECS[target].metric}, {share:.0%} of rows",
        lambda seed: link_score(source, target, share, seed),
        reference=references.get((source, target, share)),
    )


QUALITY = (
    *(_link(pair, share) for pair in PAIRS for share in SHARES),
    *(_link(pair, share) for pair in SENSORS for share in FEW),
)
CONSTANTS = tuple(
    percent(
        f"{target}, {SPECS[target].metric}, always the same, 48% of rows",
        lambda seed, target=target: constant_score(target, 0.48, seed),  # type: ignore[misc]
    )
    for target in STILL
)
STUDENTS = tuple(
    percent(
        f"{target}, {SPECS[target].metric}, distilled from inputs, {share:.0%} of rows",
        lambda seed, target=target, share=share: student_score(target, share, seed),  # type: ignore[misc]
        reference="thesis fig. 5.5: links are above the student, most where rows are few",
    )
    for target in DISTILLED
    for share in FEW
)
TOGETHER = tuple(
    percent(
        f"count from tags, scene and face above the best of them, {share:.0%} of rows",
        lambda seed, share=share: ensemble_gain(share, seed),  # type: ignore[misc]
        reference="thesis fig. 5.9: up to +4.1 points across tasks; table 5.3: +0.3 to +1.1",
    )
    for share in FEW
)


def _once(name: str, make: Callable[[], float]) -> Case:
    def runs(_: Effort) -> Iterable[float]:
        return [make()]

    reference = "thesis table 5.2: correlation and link performance rise together"
    return case(name, unit="rank correlation", better="higher", reference=reference)(runs)


CORRELATION = (
    _once("dependence and what links gain", rank_agreement),
    _once("Pearson correlation and what links gain", pearson_agreement),
)
