"""How models stand, and the plan that says which of them run, as the page shows them; pure."""

from __future__ import annotations

from typing import Any

from triparty.device.gateway.planning import LINKS
from triparty.device.gateway.status import GatewayStatus, PlanStatus
from triparty.device.page.spending import Spending


def models(status: GatewayStatus, spent: Spending | None) -> list[dict[str, Any]]:
    """Each model: what it takes and, with a plan, whether it runs or what stands for it.

    Args:
        status: of the gateway.
        spent: in the last seconds; None while that is not known.
    """
    plan = status.plan
    names = [name for name in status.stages if plan is None or name != LINKS]
    planned = () if plan is None else (*plan.active, *plan.predicted)
    names += [name for name in planned if name not in status.stages]
    return [
        {
            "name": name,
            "cpu_ms_per_s": None if spent is None else _rounded(spent.models.get(name, 0.0)),
            "plan": None if plan is None or name not in planned else _planned(plan, name),
        }
        for name in names
    ]


def plan_of(status: GatewayStatus) -> dict[str, Any] | None:
    """What the plan promises, takes and may take; None without one."""
    plan = status.plan
    if plan is None:
        return None
    costs = [plan.costs.get(name) for name in plan.active]
    known = [cost for cost in costs if cost is not None]
    is_known = bool(known) and len(known) == len(costs)
    return {
        "predicts": bool(plan.predicted),
        "recorded": plan.recorded,
        "expected_accuracy": round(plan.expected_accuracy, 4),
        "profiles": plan.profiles,
        "switches": plan.switches,
        "refused": plan.refused,
        "budgets": [
            {
                "name": name,
                "unit": unit,
                "planned": _rounded(plan.planned[place]),
                "measured": _rounded(sum(cost[place] for cost in known) if is_known else None),
                "budget": _rounded(plan.budget[place]),
            }
            for place, (name, unit) in enumerate((("memory", "MiB"), ("latency", "ms")))
        ],
    }


def _planned(plan: PlanStatus, name: str) -> dict[str, Any]:
    """What a plan does with one of its models."""
    why = plan.failing.get(name)
    runs = name in plan.active and why is None
    memory, latency = plan.costs.get(name, (None, None))
    return {
        "state": "failing" if why is not None else "runs" if runs else "predicted",
        "mood": "bad" if why is not None else "good" if runs else "calm",
        "why": why,
        "measured": plan.measured.get(name, 0),
        "predicted": plan.predictions.get(name, 0),
        "unanswered": plan.unanswered.get(name, 0),
        "sources": [] if runs else list(plan.sources.get(name, ())),
        "confidence": _rounded(plan.confidence.get(name)),
        "failures": plan.failures.get(name, 0),
        "memory_mib": _rounded(memory),
        "latency_ms": _rounded(latency),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
