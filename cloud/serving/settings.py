"""What serving reads of the cloud's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class ModelSettings(Protocol):
    """What whoever runs a model reads."""

    @property
    def device(self) -> str:
        """Where weights go: `cpu`, `cuda`, `cuda:1`, or `auto`."""

    @property
    def max_memory(self) -> Mapping[str, str]:
        """Most bytes of weights on each device that `auto` may use; empty for all."""

    @property
    def dtype(self) -> str | None:
        """Type of the weights; None for that in which they were published."""

    @property
    def max_batch_rows(self) -> int:
        """Most rows that a model runs at once."""

    @property
    def max_body_bytes(self) -> int:
        """Most bytes of rows in one request."""

    @property
    def threads(self) -> int | None:
        """Threads of a model on the CPU; None or 0 for the library's choice."""


class ServingSettings(ModelSettings, Protocol):
    """The settings that serving reads; `CloudSettings` has them all."""

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
    def trace(self) -> Path | None:
        """File that gets every received row, or None."""

    @property
    def replicas(self) -> int:
        """Replicas of a model, with the engine `ray`."""

    @property
    def max_replicas(self) -> int | None:
        """Most replicas of a model under load; None for `replicas`."""

    @property
    def sessions_per_replica(self) -> int:
        """Open sessions a replica above which another is added."""

    @property
    def replica_gpus(self) -> float:
        """GPUs that each replica takes."""

    @property
    def ray_address(self) -> str | None:
        """Of a Ray cluster that runs; None: one of the cloud's own, on loopback."""
