"""`GET /metrics`: the counters and what the cloud holds now, in Prometheus' text form.

The route has a token of its own, which opens nothing else; without one in the settings there
is no such route. No address is trusted instead: behind a reverse proxy all come from here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from pydantic import SecretStr

from triparty.cloud.auth import Bearer
from triparty.cloud.census import Census, take_census
from triparty.cloud.jobs.keeper import JobTotals
from triparty.cloud.jobs.routes import Work
from triparty.cloud.metrics import Metrics
from triparty.cloud.serving.durations import Durations
from triparty.cloud.serving.totals import ServingTotals
from triparty.cloud.state import Blobs, Clock, Sessions, Settings, Store
from triparty.common.errors import NotFoundError, UnauthenticatedError

router = APIRouter(tags=["operation"])


async def may_scrape(settings: Settings, credentials: Bearer) -> None:
    """A dependency: the request carries the scrape token.

    Raises:
        NotFoundError: metrics are off.
        UnauthenticatedError: no token, or another one.
    """
    if settings.metrics_token is None:
        raise NotFoundError("no such route")
    given = credentials.credentials if credentials else ""
    if not _is_same(given, settings.metrics_token):
        raise UnauthenticatedError("this is not the token of this cloud's metrics")


def _is_same(given: str, expected: SecretStr) -> bool:
    """Whether two tokens are one, in a time that tells nothing about either."""
    both = (given, expected.get_secret_value())
    digests = [hashlib.sha256(text.encode()).digest() for text in both]
    return hmac.compare_digest(*digests)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(
    request: Request,
    _: Annotated[None, Depends(may_scrape)],
    store: Store,
    blobs: Blobs,
    clock: Clock,
    sessions: Sessions,
    jobs: Work,
) -> Response:
    """All metrics, for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    totals = sessions.totals()
    encode, media_type = choose_encoder(request.headers.get("accept", ""))

    def page() -> bytes:
        census = take_census(store, blobs, now=clock())
        return encode(_Page(metrics, totals, census, jobs.totals()))

    return Response(await run_in_threadpool(page), headers={"Content-Type": media_type})


class _Page(Collector):
    """The metrics of one answer."""

    def __init__(
        self, metrics: Metrics, serving: ServingTotals, census: Census, jobs: JobTotals
    ) -> None:
        self._metrics, self._serving, self._census = metrics, serving, census
        self._jobs = jobs

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.registry.collect()
        yield from _serving(self._serving)
        yield from _held(self._census)
        yield from _trained(self._jobs)


def _serving(totals: ServingTotals) -> Iterator[Metric]:
    yield _gauge("models_loaded", "Models in memory.", totals.models)
    yield _gauge(
        "sessions_open", "Open sessions, completions and forwards included.", totals.sessions
    )
    yield _gauge("steps_waiting", "Steps that wait for a model or run.", totals.waiting)
    yield _gauge("cache_bytes", "Bytes of all sessions' key/value caches.", totals.cache_bytes)
    yield _gauge("weight_bytes", "Bytes of loaded models.", totals.weight_bytes)
    yield _gauge("reserved_bytes", "Memory that sessions count for.", totals.reserved_bytes)
    yield _gauge(
        "memory_limit_bytes", "Of weights and sessions; 0: none.", totals.memory_limit_bytes
    )
    yield _counter("models_evicted", "Models unloaded to make room.", totals.evicted_models)
    yield _counter("sessions_opened", "Sessions opened.", totals.opened)
    yield _counters("sessions_ended", "Sessions that ended.", "reason", totals.endings)
    yield _histogram("queue_seconds", "Waits of steps for their first pass.", totals.waited)
    yield _histogram("batch_seconds", "Durations of passes of a model.", totals.ran)
    for label, used in (("model", totals.by_model), ("principal", totals.by_principal)):
        rows = {name: each.rows for name, each in used.items()}
        replies = {name: each.replies for name, each in used.items()}
        yield _counters(f"{label}_rows", f"Rows by {label}.", label, rows)
        yield _counters(f"{label}_replies", f"Replies by {label}.", label, replies)
    yield _counter("steps", "Steps answered, of sessions, completions, forwards.", totals.steps)
    yield _counter("tokens", "Tokens generated by completions.", totals.tokens)
    yield _counter("passages", "Texts and images answered by forwards.", totals.passages)
    yield _counter("batches", "Passes of a model.", totals.batches)
    yield _counter("batch_failures", "Passes that failed.", totals.failed_batches)
    yield _counter("batch_rows", "Rows in all passes.", totals.rows)
    yield _counter("batch_sessions", "Sessions, texts and images in all passes.", totals.works)


def _held(census: Census) -> Iterator[Metric]:
    yield _by("principals", "Principals that are not revoked.", "role", census.principals)
    yield _by("artifacts", "Artifacts.", "kind", census.artifacts)
    yield _gauge("invites_open", "Invites that can still be used.", census.invites)
    yield _gauge("blob_bytes", "Bytes of verified blobs.", census.blobs.bytes)
    yield _gauge("uploads_open", "Uploads that have not ended.", census.blobs.uploads)


def _trained(totals: JobTotals) -> Iterator[Metric]:
    yield _by("jobs", "Training jobs.", "state", totals.by_state)
    ended = CounterMetricFamily(
        "triparty_jobs_ended", "Training jobs that ended.", labels=["how"]
    )
    for how, count in totals.ended.items():
        ended.add_metric([how], count)
    yield ended
    yield _counter("job_cpu_seconds", "CPU seconds of trainings.", totals.cpu_s)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"triparty_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"triparty_{name}", text, value=value)


def _counters(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"triparty_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, values: Durations) -> Metric:
    buckets = list(values.cumulative())
    return HistogramMetricFamily(
        f"triparty_{name}", text, buckets=buckets, sum_value=values.sum_s
    )


def _by(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(f"triparty_{name}", text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
