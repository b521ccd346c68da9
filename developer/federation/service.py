"""What `triparty developer federate` does, step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from triparty.common.errors import FederationError
from triparty.common.federated_links import FederatedLinks
from triparty.common.files import locked
from triparty.common.links.link import Link
from triparty.developer.federation.federation import Federation
from triparty.developer.federation.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        round: that the links were trained to.
        rounds: of the plan.
        in_vain: rounds of this run that had too few answers.
        left_out: how often each site was left out of a round of this run.
    """

    round: int
    rounds: int
    in_vain: int
    left_out: dict[str, int]


def start(
    folder: Path,
    links: FederatedLinks,
    weights: list[dict[str, Any]],
    plan: Plan,
    *,
    address: str,
    now: datetime,
) -> Federation:
    """A new federation for links.

    Args:
        folder: new.
        links: that are trained.
        weights: of each link, to begin with; their scaling stays.
        plan: whose task is filled in here.
        address: host:port of the SuperLink, as sites reach it.
        now: the time.

    Raises:
        FederationError: the folder holds something, or the address is none.
    """
    from dataclasses import replace

    trained, fixed = links.split([*weights])
    told = {name: tuple(float(one) for one in value) for name, value in fixed.items()}
    task = replace(plan.task, spec=links.text(), fixed=told)
    plan = replace(plan, task=task)
    return Federation.make(folder, plan=plan, initial=trained, address=address, now=now)


def trained_links(federation: Federation) -> list[tuple[str, str, Link]]:
    """Source, target and link, as the last round left them.

    Raises:
        FederationError: no round was run yet, or weights that are not the links'.
    """
    import numpy as np

    last, task = federation.last(), federation.plan().task
    if not last.round:
        raise FederationError("no round was run yet: triparty developer federate run")
    links = FederatedLinks.of_text(task.spec)
    fixed = {name: np.array(value, np.float32) for name, value in task.fixed.items()}
    return [
        (link.source, link.target, Link(link.design, weights))
        for link, weights in zip(links.links, links.join(last.weights, fixed), strict=True)
    ]


def run(
    federation: Federation,
    *,
    host: str,
    now: datetime,
    on_event: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Outcome:
    """Runs the rounds that are left, with a SuperLink for as long as that takes.

    Args:
        federation: with registered sites.
        host: address to listen at.
        now: the time.
        on_event: gets each event of the journal.

    Raises:
        FederationError: too few sites, or it could not go on; the journal says more.
    """
    from triparty.developer.federation.superlink import superlink

    plan, before = federation.plan(), len(federation.journal().events())
    if len(federation.sites()) < plan.least_sites:
        raise FederationError(
            f"{len(federation.sites())} sites are registered, a round needs "
            f"{plan.least_sites}: triparty developer federate register"
        )
    port = int(federation.call().superlink.rpartition(":")[2])
    try:
        with locked(federation.folder, wait=False):
            if federation.last().round < plan.rounds:
                with superlink(federation, host=host, port=port, now=now) as link:
                    last = link.wait(link.submit(), on_event)
                if last["event"] == "stopped":
                    raise FederationError(str(last["reason"]))
    except BlockingIOError as error:
        raise FederationError(f"{federation.folder} is in use by another run") from error
    return outcome(federation, federation.journal().events()[before:])


def outcome(federation: Federation, events: list[dict[str, Any]]) -> Outcome:
    """What events of a journal come to."""
    counts: dict[str, int] = {}
    for event in events:
        for name in event.get("left_out", {}):
            counts[name] = counts.get(name, 0) + 1
    in_vain = sum(event["event"] == "in-vain" for event in events)
    return Outcome(federation.last().round, federation.plan().rounds, in_vain, counts)
