"""What a site spends on decoding, filters, models and links; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triparty.device.gateway.planning import LINKS
from triparty.device.gateway.status import GatewayStatus


@dataclass(frozen=True)
class Spending:
    """CPU ms in each second.

    Attributes:
        decoding: of packets.
        filters: all of them.
        links: of the plan.
        models: by name, without their filters.
    """

    decoding: float
    filters: float
    links: float
    models: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_models(self) -> float:
        """All models."""
        return sum(self.models.values())

    @property
    def together(self) -> float:
        """All that is counted."""
        return self.decoding + self.filters + self.links + self.of_models


def spending(
    status: GatewayStatus, before: GatewayStatus | None, seconds: float
) -> Spending | None:
    """What was spent between two moments; None where there is no time between them.

    Args:
        status: the later one.
        before: the earlier one, of the same gateway.
        seconds: between them.
    """
    if before is None or seconds <= 0:
        return None
    earlier = {one.name: one.cpu_ms for one in before.filters}
    filters = [
        (one.model, _since(one.cpu_ms, earlier.get(one.name, 0.0)) / seconds)
        for one in status.filters
    ]
    stages = {
        name: _since(count.cpu_ms, _spent_by(before, name)) / seconds
        for name, count in status.stages.items()
    }
    links = stages.pop(LINKS, 0.0) if status.plan is not None else 0.0
    return Spending(
        decoding=(status.measured_ms - before.measured_ms) / seconds,
        filters=sum(ms for _, ms in filters),
        links=links,
        models={
            # A stage's time has that of its filters, which may be counted a batch earlier.
            name: max(0.0, ms - sum(of for model, of in filters if model == name))
            for name, ms in stages.items()
        },
    )


def _spent_by(status: GatewayStatus, stage: str) -> float:
    count = status.stages.get(stage)
    return 0.0 if count is None else count.cpu_ms


def _since(now: float, before: float) -> float:
    """What was added; what was begun anew meanwhile counts from nothing."""
    return now - before if now >= before else now
