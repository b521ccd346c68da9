"""Rounds whose sum alone is seen: Flower's SecAgg+, with our waiting, journal and checkpoints.

No single update is seen, so none can be judged: a site that lies moves the sum. What remains to
be checked is the sum. Updates are cut to `RANGE` and made whole numbers on their way.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
from flwr.app import Context
from flwr.common import FitRes, ndarrays_to_parameters
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import Grid

from triparty.common.errors import FederationError
from triparty.common.federation import Weights
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.waiting import connected

RANGE: Final = 16.0
"""Weights beyond are cut to it before they are masked."""

_STEPS: Final = 1 << 22  # of the range: a weight is off by 4e-6 at most, before the mean
_SHARES: Final = 1.0  # of each site's secret: with all others
_NEEDED: Final = 0.67  # of the shares, to take the mask of a site that died off the sum


class _OneRound(FedAvg):
    """The mean of a round, and whose updates are in it."""

    nodes: tuple[int, ...] = ()

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, FitRes]], failures: list[Any]
    ) -> Any:
        self.nodes = tuple(proxy.node_id for proxy, _ in results)
        return super().aggregate_fit(server_round, results, failures)


def masked_rounds(federation: Federation, grid: Grid, context: Context) -> None:
    """Runs the rounds that are left.

    Raises:
        FederationError: too few sites, or too often no sum.
    """
    plan, last, journal = federation.plan(), federation.last(), federation.journal()
    weights, in_vain = last.weights, 0
    for number in range(last.round + 1, plan.rounds + 1):
        names = connected(grid, plan, number, expected=federation.sites())
        journal.write("asked", round=number, sites=sorted(names.values()))
        found, nodes, why = _sum(grid, context, federation, weights, len(names))
        taken = sorted(names[node] for node in nodes if node in names)
        left_out = {
            name: "it did not finish the protocol"
            for name in names.values()
            if name not in taken
        }
        if found is None or len(taken) < plan.least_sites:
            in_vain += 1
            federation.keep(number, weights)
            journal.write("in-vain", round=number, sites=taken, left_out=left_out, why=why)
            if in_vain >= plan.patience:
                raise FederationError(f"{in_vain} rounds in a row came to no sum: {why}")
            continue
        weights, in_vain = found, 0
        federation.keep(number, weights)
        journal.write("round", round=number, sites=taken, left_out=left_out)


def _sum(
    grid: Grid, context: Context, federation: Federation, weights: Weights, sites: int
) -> tuple[Weights | None, tuple[int, ...], str]:
    """The mean of a round's updates, the nodes that are in it, and why there is none."""
    plan = federation.plan()
    asked = {"names": json.dumps(list(weights)), "task": json.dumps(plan.task.config())}
    strategy = _OneRound(
        fraction_evaluate=0.0,
        min_fit_clients=sites,
        min_available_clients=sites,
        initial_parameters=ndarrays_to_parameters(list(weights.values())),
        on_fit_config_fn=lambda number: dict(asked),
    )
    legacy = LegacyContext(context, ServerConfig(num_rounds=1), strategy)
    workflow = DefaultWorkflow(
        fit_workflow=SecAggPlusWorkflow(
            num_shares=_SHARES,
            reconstruction_threshold=_NEEDED,
            max_weight=1.0,
            clipping_range=RANGE,
            quantization_range=_STEPS,
            timeout=plan.deadline_s,
        ),
        evaluate_workflow=lambda grid, context: None,
    )
    made: list[Weights] = []

    def keep(number: int, arrays: list[Any], config: dict[str, Any]) -> None:
        if number:
            made.append(
                {
                    name: np.asarray(value, np.float32)
                    for name, value in zip(weights, arrays, strict=True)
                }
            )

    strategy.evaluate_fn = keep
    try:
        workflow(grid, legacy)
    except Exception as error:  # noqa: BLE001  what a site sent can break any step of it
        return None, (), f"{type(error).__name__}: {error!s:.200}"
    if not strategy.nodes or not made:
        return None, (), "too few sites finished the protocol"
    if not all(np.isfinite(value).all() for value in made[-1].values()):
        return None, (), "a sum that is not finite"
    return made[-1], strategy.nodes, ""
