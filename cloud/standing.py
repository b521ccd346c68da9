"""What a running cloud holds and does, in numbers: for its commands and for its page."""

from __future__ import annotations

from importlib.metadata import version

from starlette.datastructures import State

from triparty.cloud.bodies import StatusReply
from triparty.cloud.census import take_census
from triparty.cloud.jobs.register import UNFINISHED
from triparty.cloud.serving.durations import Durations
from triparty.common.documents import format_time


def standing(state: State) -> StatusReply:
    """Counts all of it; blocks on the database and the blobs.

    Args:
        state: of the application.
    """
    census = take_census(state.database, state.blobs, now=state.clock())
    totals = state.serving.totals()
    by_state = state.jobs.totals().by_state
    return StatusReply(
        version=version("triparty"),
        state="draining" if state.drain.is_draining else "ready",
        started=format_time(state.started),
        models=census.models,
        models_loaded=totals.models,
        sessions=state.serving.session_count(),
        jobs=sum(by_state[each] for each in UNFINISHED),
        developers=census.principals["developer"],
        devices=census.principals["device"],
        invites=census.invites,
        artifacts=sum(census.artifacts.values()),
        blob_bytes=census.blobs.bytes,
        uploads=census.blobs.uploads,
        cache_bytes=totals.cache_bytes,
        steps_waiting=totals.waiting,
        steps=totals.steps,
        tokens=totals.tokens,
        rows=totals.rows,
        batch_rows=round(totals.rows / max(1, totals.batches), 1),
        queue_ms=_mean_ms(totals.waited),
        pass_ms=_mean_ms(totals.ran),
        sessions_opened=totals.opened,
        sessions_ended=dict(totals.endings),
        models_evicted=totals.evicted_models,
        memory_bytes=totals.weight_bytes + totals.reserved_bytes,
        memory_limit_bytes=totals.memory_limit_bytes,
    )


def _mean_ms(durations: Durations) -> float:
    return round(1000 * durations.sum_s / max(1, durations.count), 2)
