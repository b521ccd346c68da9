"""Links trained across sites: what a site gains, what a round costs (thesis 5.5.4).

A classifier learns from some domains of a data set and is deployed in others, the sites, whose
domain has shifted. Each site has a few labels of its own: the target of a link from the
deployed model is the abstract label node. A site is judged on rows of its own that nothing
learnt from, by its link alone, by the links of all others together, and by both (the ensemble
of thesis 5.2.1). Rounds are Flower's strategies with our guards and ClientApp, in one process,
one message after another; messages go through Flower's serialisation, so bytes are true.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT, BenchError, Case, Effort, case
from triparty.common.federated_links import FederatedLinks, NamedLink
from triparty.common.federation import Task, Weights
from triparty.common.links.design import LinkDesign
from triparty.common.links.link import Link, no_link
from triparty.common.links.recipe import Recipe
from triparty.common.links.recorded import Recorded
from triparty.common.links.specs import Vec

THESIS = "thesis 5.5.4, three scenes of a building, as printed"
ROUNDS = 8
LABELS = 60
SEEDS = 3
TARGETS = 4
MANY = 100
NOISES = ((None, 1.0), (4.0, 1.0), (4.0, 0.2), (16.0, 1.0), (16.0, 0.2))
RECIPE = Recipe(batch=16)


@dataclass(frozen=True, eq=False)
class Domain:
    """A site: what the deployed model says there, and the true labels.

    Attributes:
        shares: (n, classes) float32.
        labels: (n,) int64.
        few: rows whose labels the site knows.
        tested: rows that nothing learns from.
    """

    shares: NDArray[np.float32]
    labels: NDArray[np.int64]
    few: NDArray[np.int64]
    tested: NDArray[np.int64]

    def recorded(self, spec: Vec, rows: NDArray[np.int64]) -> Recorded:
        """Outputs of the model and of the label node."""
        truth = np.eye(spec.width, dtype=np.float32)[self.labels[rows]]
        return Recorded(
            {"model": spec, "labels": spec}, {"model": self.shares[rows], "labels": truth}
        )

    def accuracy(self, predicted: NDArray[Any]) -> float:
        """Of predictions on the tested rows."""
        return float((predicted.argmax(1) == self.labels[self.tested]).mean())


@dataclass(frozen=True)
class Gains:
    """Accuracy at sites, in percent: means over the targets.

    Attributes:
        unlinked: of the deployed model.
        local: of a link trained on the site's few rows.
        others: of the link of all other sites.
        both: of both in one ensemble.
        begun: of a local link that begins as the others'.
    """

    unlinked: float
    local: float
    others: float
    both: float
    begun: float


@lru_cache
def har_sites(seed: int) -> tuple[Vec, list[Domain]]:
    """HAR: the model learns from ten people, each of the others is a site."""
    with np.load(_sets() / "uci_har" / "uci_har_inertial_5347.npz") as data:
        x = data["x"].astype(np.float32)
        y, who = data["y"].astype(np.int64), data["subject"].astype(np.int64)
    features = np.concatenate([x.mean(1), x.std(1), np.abs(np.diff(x, axis=1)).mean(1)], 1)
    return _deployed(features, y, who, 10, seed)


@lru_cache
def wifi_sites(seed: int) -> tuple[Vec, list[Domain]]:
    """WiFi channel state: the model learns from one time, the three others are sites."""
    with np.load(_sets() / "wifi_csi" / "wifi_csi_esp32_809.npz") as data:
        x = data["x"].astype(np.float32)
        y, day = data["y"].astype(np.int64), data["domain"].astype(np.int64)
    features = np.concatenate([x.mean(2), x.std(2)], 1)
    return _deployed(features, y, day, 1, seed)


@lru_cache
def fsdd_sites(seed: int) -> tuple[Vec, list[Domain]]:
    """Spoken digits: the model learns from two speakers, the four others are sites."""
    with np.load(_sets() / "fsdd" / "fsdd_logmel_3000.npz") as data:
        x = data["x"].astype(np.float32) / 255
        y, _, who = data["digit"].astype(np.int64), 0, data["speaker"]
    thirds = np.array_split(x, 6, axis=2)
    features = np.concatenate([one.mean(2) for one in thirds], 1)
    return _deployed(features, y, np.unique(who, return_inverse=True)[1], 2, seed)


SETS = {"har": har_sites, "wifi": wifi_sites, "fsdd": fsdd_sites}


@lru_cache
def gains(name: str, seed: int, quick: bool) -> Gains:
    """What sites of a set gain."""
    spec, domains = SETS[name](seed)
    targets = range(min(len(domains), 2 if quick else TARGETS))
    from triparty.common.links.training import fit_link
    from triparty.device.federation.local_global import local_and_global

    rows = []
    for target in targets:
        domain = domains[target]
        rest = [one for number, one in enumerate(domains) if number != target]
        shared = _link(spec, federate(spec, rest))
        known = domain.recorded(spec, domain.few)
        made = local_and_global(known, "model", "labels", shared, RECIPE)
        begun = fit_link(
            shared.design,
            known.outputs["model"],
            known.outputs["labels"],
            RECIPE,
            start=shared.weights,
        )
        shown = domain.shares[domain.tested]
        rows.append(
            [
                domain.accuracy(shown),
                domain.accuracy(made.local.link.predict(shown)),
                domain.accuracy(shared.predict(shown)),
                domain.accuracy(made.ensemble.predict({"model": shown}).outputs),
                domain.accuracy(begun.link.predict(shown)),
            ]
        )
    return Gains(*(100 * np.mean(rows, axis=0)))


@dataclass(frozen=True)
class Cost:
    """What rounds cost.

    Attributes:
        seconds: of a round with all its sites, one after another.
        bytes_each_way: of a round, for one site.
    """

    seconds: float
    bytes_each_way: float


def cost(sites: int, rounds: int = 3) -> Cost:
    """Rounds with so many simulated sites; HAR's people, again and again."""
    spec, domains = har_sites(0)
    many = [domains[number % len(domains)] for number in range(sites)]
    began = time.perf_counter()
    _, sent, received = _rounds(spec, many, rounds)
    seconds = time.perf_counter() - began
    return Cost(seconds / rounds, (sent + received) / 2 / rounds / sites)


def federate(spec: Vec, domains: list[Domain]) -> Weights:
    """The global link's weights after all rounds."""
    return _rounds(spec, domains, ROUNDS)[0]


@lru_cache
def private(noise: float | None, clip: float, seed: int) -> float:
    """Mean accuracy of WiFi's sites, each many times over, with a global link behind noise."""
    spec, domains = wifi_sites(seed)
    many = [domains[number % len(domains)] for number in range(MANY)]
    link = _link(spec, _rounds(spec, many, ROUNDS, noise=noise, clip=clip)[0])
    told = [domain.accuracy(link.predict(domain.shares[domain.tested])) for domain in domains]
    return 100 * float(np.mean(told))


def _rounds(
    spec: Vec,
    domains: list[Domain],
    rounds: int,
    *,
    noise: float | None = None,
    clip: float = 1.0,
) -> tuple[Weights, int, int]:
    from triparty.developer.federation.federation import Federation
    from triparty.developer.federation.plan import Plan, Privacy
    from triparty.developer.federation.simulation import simulate
    from triparty.device.federation.answer import answer
    from triparty.device.federation.recordings import RecordedLearner

    def site(domain: Domain) -> Any:
        learner = RecordedLearner(domain.recorded(spec, domain.few))
        return lambda message, context: answer(message, lambda: learner)

    _quiet()
    links, first = _beginning(spec)
    plan = Plan(_task(links), rounds=rounds, wait_s=0.0)
    if noise is not None:
        plan = replace(plan, least_sites=len(domains), privacy=Privacy(noise, clip))
    with TemporaryDirectory() as folder:
        federation = Federation.make(
            Path(folder) / "federation",
            plan=plan,
            initial=first,
            address="127.0.0.1:8000",
            now=datetime.now(UTC),
        )
        sites = {f"site-{number}": site(domain) for number, domain in enumerate(domains)}
        grid = simulate(federation, sites)
        return federation.last().weights, grid.sent_bytes, grid.received_bytes


def _beginning(spec: Vec) -> tuple[FederatedLinks, Weights]:
    design = LinkDesign(spec, spec, "identity")
    links = FederatedLinks((NamedLink("model", "labels", design),))
    return links, links.split([no_link(design).weights])[0]


def _link(spec: Vec, weights: Weights) -> Link:
    links, _ = _beginning(spec)
    return Link(links.links[0].design, links.join(weights, {})[0])


def _task(links: FederatedLinks) -> Task:
    return Task(links.text(), epochs=3, rate=0.01, batch=16)


def _deployed(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    group: NDArray[np.int64],
    taught: int,
    seed: int,
) -> tuple[Vec, list[Domain]]:
    """A model taught by some groups, and what it says at the others."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.unique(group))
    shown = np.isin(group, groups[:taught])
    classes = int(labels.max()) + 1
    shares = _classifier(features, labels, shown, classes, seed)
    spec = Vec("single-label", classes, tuple(str(one) for one in range(classes)))
    domains = []
    for one in groups[taught:]:
        rows = rng.permutation(np.flatnonzero(group == one))
        half = len(rows) // 2
        few = rows[: min(LABELS, half)]
        domains.append(
            Domain(shares[rows], labels[rows], np.arange(len(few)), np.arange(half, len(rows)))
        )
    return spec, domains


def _classifier(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    shown: NDArray[np.bool_],
    classes: int,
    seed: int,
) -> NDArray[np.float32]:
    """Shares that a small network, taught by the rows that it is shown, gives all rows."""
    import torch
    from torch import nn

    mean, deviation = features[shown].mean(0), features[shown].std(0) + 1e-6
    inputs = torch.from_numpy(((features - mean) / deviation).astype(np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(features.shape[1], 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, classes)
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, weight_decay=1e-4)
        taught = torch.from_numpy(np.flatnonzero(shown))
        target = torch.from_numpy(labels)
        for _ in range(40):
            for rows in torch.split(taught[torch.randperm(len(taught))], 64):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(inputs[rows]), target[rows])
                torch.autograd.backward(loss)
                optimizer.step()
        network.eval()
        with torch.no_grad():
            made: NDArray[np.float32] = network(inputs).softmax(1).numpy()
    return made


def _sets() -> Path:
    folder = Path(os.environ.get("TRIPARTY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        raise BenchError(f"real data absent: {folder} (set TRIPARTY_TEST_DATA)")
    return folder / "sets"


def _quiet() -> None:
    import logging

    logging.getLogger("flwr").setLevel(logging.ERROR)


def _seeds(effort: Effort) -> range:
    return range(1 if effort.quick else SEEDS)


def _points(name: str, of: str, base: str, text: str, reference: str) -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        for seed in _seeds(effort):
            found = gains(name, seed, effort.quick)
            yield getattr(found, of) - getattr(found, base)

    return case(text, unit="points", better="higher", reference=reference)(runs)


def _accuracy(name: str, of: str, text: str) -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        return [getattr(gains(name, seed, effort.quick), of) for seed in _seeds(effort)]

    return case(text, unit="%", better="higher")(runs)


def _set_cases(name: str, title: str) -> tuple[Case, ...]:
    return (
        _accuracy(name, "unlinked", f"{title}: the deployed model at a new site"),
        _accuracy(name, "local", f"{title}: a local link"),
        _accuracy(name, "others", f"{title}: the others' link, no label of the site"),
        _accuracy(name, "both", f"{title}: local and global link"),
        _accuracy(name, "begun", f"{title}: a local link that begins as the global one"),
        _points(
            name, "others", "unlinked", f"{title}: the others' link against none",
            f"{THESIS}: +7.85",
        ),
        _points(
            name, "both", "local", f"{title}: both against the local link alone",
            f"{THESIS}: +1.1",
        ),
    )  # fmt: skip


@lru_cache
def _cost(sites: int) -> Cost:
    return cost(sites)


def _seconds(sites: int) -> Case:
    return case(
        f"a round with {sites} simulated sites, one after another",
        unit="s",
        better="lower",
    )(lambda effort: [_cost(sites).seconds])


def _private(noise: float | None, clip: float) -> Case:
    def runs(effort: Effort) -> Iterable[float]:
        return [private(noise, clip, seed) for seed in _seeds(effort)]

    told = "no noise"
    if noise is not None:
        told = f"noise {noise:g}, clip {clip:g}, epsilon {_epsilon(noise):.2g}"
    name = f"federation, {MANY} sites of WiFi times, {told}"
    return case(name, unit="%", better="higher", reference="the thesis has none")(runs)


def _epsilon(noise: float) -> float:
    """Of all rounds, at delta 1e-5; a site's other rows move the sum by two norms."""
    from triparty.developer.federation.accounting import gaussian_epsilon

    return gaussian_epsilon(noise / 2, ROUNDS, 1e-5)


FEDERATION = (
    *_set_cases("har", "federation, HAR people"),
    *_set_cases("wifi", "federation, WiFi times"),
    *_set_cases("fsdd", "federation, speakers"),
    *(_private(noise, clip) for noise, clip in NOISES),
    _seconds(20),
    _seconds(100),
    case(
        "a round's bytes each way for one site (42 parameters)",
        unit="B",
        better="lower",
        reference="thesis 5.5.4 says 88 B per client, the size of a Python list",
    )(lambda effort: [_cost(20).bytes_each_way]),
)
