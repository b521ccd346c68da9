"""`cloud status` for people: one line a subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.filesize import decimal


def lines(status: Mapping[str, Any]) -> list[str]:
    """The lines of `GET /v1/status`; a field that the cloud does not know is `?`."""

    def many(field: str, what: str) -> str:
        return f"{_number(status.get(field, '?'))} {what}"

    subjects = {
        "cloud": f"version {status.get('version', '?')}, {status.get('state', '?')}, "
        f"since {status.get('started', '?')}",
        "accounts": f"{many('developers', 'developers')}, {many('devices', 'devices')}, "
        f"{many('invites', 'open invites')}",
        "models": f"{many('models', 'published')}, {many('models_loaded', 'loaded')}",
        "sessions": f"{many('sessions', 'open')}, caches {_size(status.get('cache_bytes'))}, "
        f"{many('steps_waiting', 'steps waiting')}",
        "memory": f"{_size(status.get('memory_bytes'))} of models and sessions, "
        f"{_limit(status.get('memory_limit_bytes', '?'))}, {many('models_evicted', 'evicted')}",
        "ended": _ended(status.get("sessions_ended")),
        "answered": f"{many('steps', 'steps')}, {many('rows', 'rows')}, "
        f"{many('tokens', 'tokens of completions')}",
        "passes": f"{many('batch_rows', 'rows each')}, {many('pass_ms', 'ms')}; steps waited "
        f"{many('queue_ms', 'ms')}",
        "stored": f"{many('artifacts', 'artifacts')}, {_size(status.get('blob_bytes'))} of "
        f"blobs, {many('uploads', 'open uploads')}",
        "jobs": many("jobs", "waiting or running"),
    }
    return [f"{subject:<10}{text}" for subject, text in subjects.items()]


def _ended(value: object) -> str:
    """Why sessions ended, the most frequent reason first."""
    if not isinstance(value, Mapping):
        return "?"
    reasons = sorted(((n, str(why)) for why, n in value.items() if n), reverse=True)
    return ", ".join(f"{n:,} {why}" for n, why in reasons) or "no session yet"


def _limit(value: object) -> str:
    return "no limit" if value == 0 else f"limit {_size(value)}"


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(value: object) -> str:
    return decimal(value) if isinstance(value, int) else "?"
