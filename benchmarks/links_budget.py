"""Five models on a clip in half of their time: mean agreement with what the models say.

Every fifth stretch of 5 seconds is learnt from, the rest tested. Ours plans on a third of what
is learnt from, which its links have not seen, as a developer does. Rows that hold results from
before (last value, Reducto) and the oracle get the same mean time a frame as ours took, and may
keep all models in memory, which ours does not need. Where others of ours run now and then it
needs that too, spends all of its time, and stands beside these rows in that time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.filter_reducto import DIFFERENCES
from benchmarks.harness import Case, Effort, case
from benchmarks.links_clip import BLOCK, Clip, clip
from triparty.common.links.ensemble import Ensemble
from triparty.common.links.features import constant
from triparty.common.links.linking import train_links
from triparty.common.links.metrics import agreement
from triparty.common.links.planning.costs import Budget
from triparty.common.links.planning.measured import measured_problem
from triparty.common.links.planning.plan import choose
from triparty.common.links.planning.problem import Problem
from triparty.common.links.planning.refreshing import Refreshed, held_agreement, refreshed
from triparty.common.links.recipe import Recipe
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import Vec
from triparty.device.links.runtime import Links

SHARE: Final = 0.5
THESIS: Final = "thesis table 5.5: 94.1 and 94.0 % at 5 of 9.8 GB"
Rights = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stage:
    """One run: a clip, links of a seed, and what is tested.

    Attributes:
        clip: whole.
        ensembles: links, by target.
        learnt: outputs that were learnt from.
        kept_back: outputs that the plan is chosen on.
        tested: the others.
    """

    clip: Clip
    ensembles: Mapping[str, Ensemble]
    learnt: Recorded
    kept_back: Recorded
    tested: Recorded

    def problem(self, sample: Recorded, doubt: float = 0.0) -> Problem:
        """Half of the time of all models, judged on a sample."""
        costs = self.clip.costs
        total = sum(cost.latency_ms for cost in costs.values())
        budget = Budget(None, SHARE * total)
        return measured_problem(sample, self.ensembles, costs, budget, doubt=doubt)

    @property
    def active(self) -> tuple[str, ...]:
        """What the plan runs."""
        return choose(self.problem(self.kept_back, 1.0)).active

    def spent(self, active: Iterable[str]) -> float:
        """Share of the time of all models that some take."""
        costs = {name: cost.latency_ms for name, cost in self.clip.costs.items()}
        return sum(costs[name] for name in active) / sum(costs.values())


@lru_cache
def stage(seed: int) -> Stage:
    """The clip with links that were trained with a seed."""
    found = clip()
    learnt, kept_back, tested = (found.recorded.part(rows) for rows in found.parts)
    ensembles = train_links(learnt, Recipe(seed=seed, epochs=60))
    return Stage(found, ensembles, learnt, kept_back, tested)


def ours(one: Stage) -> float:
    """The chosen models run, links predict the rest."""
    return _accuracy(one, one.active)


@lru_cache
def now_and_then(one: Stage) -> Refreshed:
    """What runs on every frame and what now and then, planned on the frames that are known."""
    known = np.sort(np.concatenate(one.clip.parts[:2]))
    held = held_agreement(one.clip.recorded.part(known), known // BLOCK)
    return refreshed(one.problem(one.kept_back, 1.0), held)


@lru_cache
def best_now_and_then(one: Stage) -> Refreshed:
    """The same of the frames that are tested, known only afterwards."""
    tested = one.clip.parts[2]
    stretch = np.cumsum(np.diff(tested, prepend=tested[0]) > 1)
    return refreshed(one.problem(one.tested), held_agreement(one.tested, stretch, doubt=0.0))


def refreshing(one: Stage, plan: Refreshed) -> float:
    """Ours, and others now and then in the time that is left: by the device's runtime."""
    said = one.tested.outputs
    links = Links(one.ensembles, active=plan.active, refresh=plan.refresh)
    for name, spec in one.tested.specs.items():
        links.node(name, spec)(partial(_recorded, said[name]))
    told = [links.results(np.float64(row)) for row in range(len(one.tested))]
    return _mean(
        float(
            agreement(spec, np.stack([each[name].output for each in told]), said[name]).mean()
        )
        for name, spec in one.tested.specs.items()
    )


def planned_time(one: Stage) -> float:
    """Share of the time of all models that it takes."""
    total = sum(cost.latency_ms for cost in one.clip.costs.values())
    return now_and_then(one).cost["latency_ms"] / total


def optimum(one: Stage) -> float:
    """The best that these links allow, of all choices, known only afterwards."""
    return _accuracy(one, choose(one.problem(one.tested), "exact").active)


def standalone(one: Stage) -> float:
    """As many models as fit, the cheapest first; the others count as wrong."""
    return len(_cheapest(one)) / len(one.tested.specs)


def constants(one: Stage) -> float:
    """The same models; of the others the output that did best before."""
    rights = _constant_rights(one)
    return _mean(
        1.0 if name in _cheapest(one) else float(right.mean()) for name, right in rights.items()
    )


def last_value(one: Stage, share: float) -> float:
    """All models on every so many frames, and their last outputs between."""
    every = max(2, round(1 / share))
    held = np.arange(len(one.tested)) // every * every
    return _held(one, held)


def reducto(one: Stage, share: float) -> float:
    """All models where pictures differ the most, as often as there is time for."""
    luma = one.clip.luma[one.clip.parts[2]].astype(np.float32)
    best = 0.0
    for difference in DIFFERENCES.values():
        steps = np.array([difference(a, b) for a, b in pairwise(luma)])
        looks = np.concatenate([[True], steps >= np.quantile(steps, 1 - share)])
        held = np.maximum.accumulate(np.where(looks, np.arange(len(looks)), 0))
        best = max(best, _held(one, held))
    return best


def scheduler(one: Stage, share: float) -> float:
    """An oracle of a scheduler: in each frame's time the models that are not as usual."""
    rights = _constant_rights(one)
    costs = {name: one.spent([name]) for name in rights}
    total = 0.0
    for row in range(len(one.tested)):
        left = share
        for name in sorted(rights, key=lambda each: costs[each]):
            if rights[name][row] == 1.0:
                total += 1.0
            elif costs[name] <= left:
                left -= costs[name]
                total += 1.0
    return total / len(one.tested) / len(rights)


def multi_task(one: Stage, seed: int) -> float:
    """One network that sees the pictures and learns all models' outputs."""
    import torch

    torch.manual_seed(seed)
    specs = {name: spec for name, spec in one.tested.specs.items() if isinstance(spec, Vec)}
    net = torch.nn.Sequential(
        *(
            layer
            for narrow, wide in ((1, 16), (16, 32), (32, 32))
            for layer in (
                torch.nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
                torch.nn.ReLU(),
                torch.nn.MaxPool2d(2),
            )
        ),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(128),
        torch.nn.ReLU(),
        torch.nn.Linear(128, sum(spec.width for spec in specs.values())),
    )
    pictures = torch.from_numpy(one.clip.luma[:, None].astype(np.float32) / 127.5 - 1.0)
    net(pictures[:1])
    steps = torch.optim.Adam(net.parameters(), 1e-3)
    rng, (learnt, _, tested) = np.random.default_rng(seed), one.clip.parts
    for _ in range(60):
        for rows in np.array_split(rng.permutation(len(learnt)), max(1, len(learnt) // 16)):
            steps.zero_grad()
            parts = net(pictures[learnt[rows]]).split(
                [spec.width for spec in specs.values()], dim=1
            )
            loss = sum(
                torch.nn.functional.cross_entropy(part, said)
                if spec.task == "single-label"
                else torch.nn.functional.smooth_l1_loss(part, said)
                for part, (name, spec) in zip(parts, specs.items(), strict=True)
                for said in [torch.from_numpy(one.learnt.outputs[name][rows])]
            )
            loss.backward()  # type: ignore[union-attr]
            steps.step()
    with torch.no_grad():
        parts = net(pictures[tested]).split([spec.width for spec in specs.values()], dim=1)
    return _mean(
        float(agreement(spec, part.numpy(), one.tested.outputs[name]).mean())
        for part, (name, spec) in zip(parts, specs.items(), strict=True)
    )


def _recorded(said: NDArray[Any], row: float) -> NDArray[Any]:
    """What a model said of a frame, as a model that is run."""
    found: NDArray[Any] = said[int(row)]
    return found


def _accuracy(one: Stage, active: tuple[str, ...]) -> float:
    problem = one.problem(one.tested)
    mask = np.array([name in active for name in problem.models])
    return float(problem.accuracy(mask[None])[0])


def _cheapest(one: Stage) -> tuple[str, ...]:
    names, found = sorted(one.tested.specs, key=lambda name: one.spent([name])), []
    for name in names:
        if one.spent([*found, name]) <= SHARE:
            found.append(name)
    return tuple(found)


def _constant_rights(one: Stage) -> dict[str, Rights]:
    """Of each model, by frame, how right the output is that did best before."""
    rights = {}
    for name, spec in one.tested.specs.items():
        said = one.tested.outputs[name]
        usual = np.repeat(constant(spec, one.learnt.outputs[name]), len(said), axis=0)
        rights[name] = agreement(spec, usual, said)
    return rights


def _held(one: Stage, held: NDArray[np.intp]) -> float:
    """All models were run on the frames that are held."""
    return _mean(
        float(agreement(spec, one.tested.outputs[name][held], one.tested.outputs[name]).mean())
        for name, spec in one.tested.specs.items()
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _row(
    name: str, of: Callable[[Stage, int], float], target: float | None = None, unit: str = "%"
) -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        return [100 * of(stage(seed), seed) for seed in range(1 if effort.quick else 3)]

    better = "lower" if "below" in name or name.startswith("time") else "higher"
    full = f"5 models on a clip, half of their time: {name}"
    return case(full, unit=unit, better=better, target=target, reference=THESIS)(runs)  # type: ignore[arg-type]


BUDGET = (
    _row("ours", lambda one, _: ours(one)),
    _row("optimum of these links", lambda one, _: optimum(one)),
    _row("ours below the optimum, points", lambda one, _: optimum(one) - ours(one), 1.0),
    _row("time of ours, of that of all models", lambda one, _: one.spent(one.active)),
    _row("standalone", lambda one, _: standalone(one)),
    _row("standalone and constant outputs", lambda one, _: constants(one)),
    _row("last value", lambda one, _: last_value(one, one.spent(one.active))),
    _row("Reducto", lambda one, _: reducto(one, one.spent(one.active))),
    _row("oracle of a scheduler", lambda one, _: scheduler(one, one.spent(one.active))),
    _row("ours, others now and then", lambda one, _: refreshing(one, now_and_then(one))),
    _row(
        "ours, others now and then, below the best choice of that, points",
        lambda one, _: (
            refreshing(one, best_now_and_then(one)) - refreshing(one, now_and_then(one))
        ),
        1.0,
    ),
    _row("time of ours, others now and then", lambda one, _: planned_time(one)),
    _row("last value in that time", lambda one, _: last_value(one, planned_time(one))),
    _row("Reducto in that time", lambda one, _: reducto(one, planned_time(one))),
    _row("scheduler's oracle in that", lambda one, _: scheduler(one, planned_time(one))),
    _row("multi-task network", multi_task),
)
