"""Structured logs: one JSON object a line, with a request id and never a secret.

A log call passes fields with `extra={...}`; only the fields named in `FIELDS` are written, so
that a token, a key, a row or a logit cannot get into a log by accident.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from contextvars import ContextVar
from typing import IO, Any

FIELDS = (
    "method",
    "route",
    "status",
    "duration_ms",
    "bytes_in",
    "bytes_out",
    "principal",
    "role",
    "developer",
    "kind",
    "version",
    "epoch",
    "model",
    "count",
    "problem",
    "address",
    "artifact",
    "blob",
)
"""What a log line may hold beside time, level, message and request id."""

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being answered, in every log line that it causes."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        values = vars(record)
        line |= {key: values[key] for key in FIELDS if key in values}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log_to(stream: IO[str] | None = None, *, level: int = logging.INFO) -> None:
    """Sends all logs of this process as JSON lines to `stream` (stderr if None)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
