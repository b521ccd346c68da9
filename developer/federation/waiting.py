"""Waiting for sites, but not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.serverapp import Grid

from triparty.common.errors import FederationError
from triparty.developer.federation.flower import site_names
from triparty.developer.federation.plan import Plan

_POLL_S = 1.0


def connected(
    grid: Grid,
    plan: Plan,
    number: int,
    *,
    expected: Iterable[str] = (),
    wait: Callable[[float], None] = time.sleep,
) -> dict[int, str]:
    """Names of the connected sites by node; the first round waits for all that are expected.

    Args:
        grid: of Flower.
        plan: says for how long, and how many are enough then.
        number: of the round.
        expected: names of the sites that were registered.
        wait: sleeps.

    Raises:
        FederationError: too few by the time that the plan gives them.
    """
    names_expected = frozenset(expected)
    until = time.monotonic() + plan.wait_s
    needed = max(plan.least_sites, len(names_expected) if number == 1 else 0)
    while True:
        names = site_names(grid)
        if len(names) >= needed:
            return names
        if time.monotonic() >= until:
            break
        wait(min(_POLL_S, plan.wait_s))
    if len(names) >= plan.least_sites:
        return names
    absent = sorted(names_expected - set(names.values()))
    raise FederationError(
        f"round {number}: {len(names)} sites are connected after {plan.wait_s:g} s, "
        f"{plan.least_sites} are needed; absent: {', '.join(absent) or 'unknown'}"
    )
