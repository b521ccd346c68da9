"""What kind of event a change of an answer is; pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from triparty.device.events.event import Kind


def kind_of(measure: str, before: Any, after: Any) -> Kind:
    """The kind of a change.

    | measure | kind |
    |---|---|
    | `presence` | `enter` when something is there, `leave` when nothing is |
    | `count` | the same from and to 0; `count` between other numbers |
    | `anomaly` | `anomaly` when there is one, `leave` when it is gone |
    | `labels` | `enter` if labels only came, `leave` if they only went, else `change` |
    | `value`, `boxes` | `change` |

    Args:
        measure: of the task.
        before: its answer before.
        after: its answer after; another one.
    """
    if measure == "anomaly":
        return "anomaly" if after else "leave"
    if measure == "labels":
        return _of_sets(set(before), set(after))
    if measure == "count" and before and after:
        return "count"
    if measure in ("count", "presence"):
        return "enter" if after else "leave"
    return "change"


def kind_of_stored(before: Any, after: Any) -> Kind:
    """The kind of a change whose task is not known any more, by the answers alone."""
    if isinstance(before, list) and isinstance(after, list):
        return _of_sets(set(map(str, before)), set(map(str, after)))
    if isinstance(before, bool) and isinstance(after, bool):
        return kind_of("presence", before, after)
    if isinstance(before, int) and isinstance(after, int):
        return kind_of("count", before, after)
    return "change"


def _of_sets(before: Collection[Any], after: Collection[Any]) -> Kind:
    if set(before) < set(after):
        return "enter"
    return "leave" if set(after) < set(before) else "change"
