"""How `triparty device gate replay` tells what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triparty.device.gate.fleet import Tables
    from triparty.device.gate.recall import Estimate
    from triparty.device.gate.replay_audit import AuditCheck
    from triparty.device.gate.scoring import Score


def as_json_run(name: str, budget_ms: float, score: Score) -> dict[str, Any]:
    """One run for JSON."""
    return {
        "policy": name,
        "streams": score.streams,
        "budget_ms_per_round": budget_ms,
        "accuracy": score.mean_accuracy(0.0),
        "accuracy_within_1_s": score.mean_accuracy(1.0),
        "accuracy_by_task": [
            {"task": one.task, "tolerance_s": one.tolerance_s, "accuracy": one.value}
            for one in score.accuracy
        ],
        "decode_ms": score.decode_ms,
        "full_decode_ms": score.full_decode_ms,
        "max_staleness_s": score.max_staleness_s,
        "rounds": score.rounds,
        "rounds_over_budget": score.rounds_over_budget,
        "worst_second": score.worst_second,
        "packets": score.packets,
        "decoded": score.decoded,
        "targets": score.targets,
        "audits": [_audit_as_json(one) for one in score.audits],
    }


def _audit_as_json(found: AuditCheck) -> dict[str, Any]:
    return {
        "task": found.task,
        "groups": found.groups,
        "audited": found.audited,
        "audited_ms": found.audited_ms,
        **{
            name: {
                "estimate": _known(estimate.share),
                "low": estimate.low,
                "high": estimate.high,
                "true": _known(true),
            }
            for name, estimate, true in (
                ("accuracy", found.accuracy, found.true_accuracy),
                ("recall", found.recall, found.true_recall),
            )
        },
    }


def _known(share: float) -> float | None:
    """A share, or None where there was nothing to find."""
    return share if share == share else None


def tell(
    known: Tables, streams: int, seconds: float, scores: list[tuple[str, float, Score]]
) -> None:
    """Prints tables: all runs, and what audits of them said."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    out = RichConsole()
    table = Table(
        title=f"{streams} streams made of {len(known.period)} traces, {seconds:g} s each",
        caption="right: share of frames at which the held answer was the frame's own; within "
        "1 s: or had been within the last second. Cost: decode CPU beside decoding everything. "
        "Busiest second: of a second's budget; what was saved before may be spent.",
        caption_justify="left",
    )
    table.add_column("policy")
    titles = ("budget\nms/round", "cost", "right", "within\n1 s", "stalest", "busiest\nsecond")
    for title in titles:
        table.add_column(title, justify="right")
    for name, budget_ms, score in scores:
        table.add_row(
            name,
            f"{budget_ms:.2f}",
            f"{score.decode_share:.1%}",
            f"{score.mean_accuracy(0.0):.1%}",
            f"{score.mean_accuracy(1.0):.1%}",
            f"{score.max_staleness_s:.1f} s",
            f"{score.worst_second:.0%}",
        )
    out.print(table)
    full = scores[0][2].full_decode_ms / scores[0][2].rounds
    out.print(f"decoding everything takes {full:.2f} ms a round and is always right")
    if any(score.audits for _, _, score in scores):
        _table_of_audits(out, scores)


def _table_of_audits(out: Any, scores: list[tuple[str, float, Score]]) -> None:
    from rich.table import Table

    table = Table(
        title="audits: groups decoded whole beside the gate, by a coin",
        caption="estimate (95 % interval), and what is true of all groups. Right: share of "
        "frames; caught: share of changes at which the gate looked before the next.",
        caption_justify="left",
    )
    for column in ("policy", "task"):
        table.add_column(column)
    for column in ("groups", "cost", "right", "true", "caught", "true"):
        table.add_column(column, justify="right")
    for name, _, score in scores:
        for one in score.audits:
            table.add_row(
                name,
                one.task,
                f"{one.audited} of {one.groups}",
                f"{one.audited_ms / score.full_decode_ms:.1%}",
                _interval(one.accuracy),
                _percent(one.true_accuracy),
                _interval(one.recall),
                _percent(one.true_recall),
            )
    out.print(table)


def _interval(estimate: Estimate) -> str:
    low, high = _percent(estimate.low), _percent(estimate.high)
    return f"{_percent(estimate.share)} ({low} to {high})"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share == share else "-"
