"""What this process has done since it started, counted for Prometheus.

Every label has few values: a route's template, a status, a problem's slug, never a path, a
principal or the name of a model. Names of models are made by developers, so there is no bound
on them, and who reads the metrics need not know them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE"})
OTHER_METHOD = "other"
NO_ROUTE = "none"
"""The route of what was refused before it reached one, and of paths that nobody serves."""
DURATIONS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# Else each series has a second one.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counters of one application."""

    def __init__(self) -> None:
        """All zero."""
        self.registry = CollectorRegistry()
        build = Info("triparty_build", "What runs.", registry=self.registry)
        build.info({"version": version("triparty"), "python": platform.python_version()})
        self._requests = self._counter(
            "requests", "Requests answered.", "method", "route", "status"
        )
        self._received = self._counter("received_bytes", "Bytes of bodies received.", "route")
        self._sent = self._counter("sent_bytes", "Bytes of bodies sent.", "route")
        self._problems = self._counter("problems", "Answers that were problems.", "type")
        self._closed = self._counter(
            "connections_closed", "Connections that the cloud cut or refused.", "reason"
        )
        self._durations = Histogram(
            "triparty_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=DURATIONS_S,
            registry=self.registry,
        )

    def request(
        self,
        *,
        method: str,
        route: str | None,
        status: int,
        problem: str | None,
        duration_s: float,
        bytes_in: int,
        bytes_out: int,
    ) -> None:
        """Counts a request that has been answered.

        Args:
            method: as sent.
            route: the template of its route; None if it reached none.
            status: of the answer; 499 if the client left first.
            problem: slug of the problem that it was answered with.
            duration_s: from its headers to the end of its answer, in seconds.
            bytes_in: of its body.
            bytes_out: of the answer's body.
        """
        route = route or NO_ROUTE
        known = method if method in METHODS else OTHER_METHOD
        self._requests.labels(known, route, str(status)).inc()
        self._durations.labels(route).observe(duration_s)
        self._received.labels(route).inc(bytes_in)
        self._sent.labels(route).inc(bytes_out)
        if problem is not None:
            self._problems.labels(problem).inc()

    def watch_connections(self, count: Callable[[], int]) -> None:
        """Has `count` asked for the number of open connections; once."""
        gauge = Gauge("triparty_connections_open", "Open connections.", registry=self.registry)
        gauge.set_function(count)

    def connection_closed(self, reason: str) -> None:
        """Counts a connection that was cut or refused; `reason` is one of few words."""
        self._closed.labels(reason).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"triparty_{name}", text, labels, registry=self.registry)
