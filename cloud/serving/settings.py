"""What serving reads of the cloud's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ServingSettings(Protocol):
    """The settings that serving reads; `CloudSettings` has them all."""

    @property
    def max_body_bytes(self) -> int:
        """Most bytes of rows in one request."""

    @property
    def max_rows_per_step(self) -> int:
        """Most rows in one step."""

    @property
    def max_reply_rows(self) -> int:
        """Most rows of one step that a reply is about."""

    @property
    def max_positions(self) -> int:
        """Most rows of a session, where the model allows as many."""

    @property
    def max_sessions_per_principal(self) -> int:
        """Most open sessions of one principal."""

    @property
    def max_sessions_per_developer(self) -> int:
        """Most open sessions on the models of one developer."""

    @property
    def max_steps_per_developer(self) -> int:
        """Most steps of one developer's devices that run or wait."""

    @property
    def max_cache_bytes_per_developer(self) -> int:
        """Most memory of the sessions on one developer's models."""

    @property
    def max_models_per_developer(self) -> int:
        """Most loaded models of one developer."""

    @property
    def max_memory_bytes(self) -> int | None:
        """Most memory of loaded models and sessions together; None: no bound."""

    @property
    def metrics_names(self) -> int:
        """Models, and principals, that metrics count by name."""

    @property
    def max_sessions(self) -> int:
        """Most open sessions in all."""

    @property
    def session_idle_s(self) -> float:
        """Seconds after which an unused session is dropped."""

    @property
    def max_batch_rows(self) -> int:
        """Most rows that a model runs at once."""

    @property
    def threads(self) -> int | None:
        """Threads of a model on the CPU; None or 0 for the library's choice."""

    @property
    def trace(self) -> Path | None:
        """File that gets every received row, or None."""
