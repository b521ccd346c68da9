"""What the gateway has done, for Prometheus.

Cameras are labels: their names are the operator's own, and there are as many series as cameras.
Never an address. The figures tell when something happened: they are for loopback, or for a
network whose readers may know.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from triparty.common.errors import StateError
from triparty.device.events.outlet import OutletStatus
from triparty.device.events.store import StoreStatus
from triparty.device.gate.recall import Estimate
from triparty.device.gateway.status import CameraStatus, FilterStatus, GatewayStatus, PlanStatus
from triparty.device.streams.status import State

PREFIX = "triparty_device_"


@dataclass(frozen=True)
class Figure:
    """One metric of each camera.

    Attributes:
        name: without prefix; one that ends in `_total` is a counter.
        help: what it counts.
        of: its value.
    """

    name: str
    help: str
    of: Callable[[CameraStatus], float]


FIGURES = (
    Figure("packets_total", "Packets received.", lambda c: c.stream.packets),
    Figure("received_bytes_total", "Bytes of these packets.", lambda c: c.stream.size_bytes),
    Figure("corrupt_packets_total", "Packets that were damaged.", lambda c: c.stream.corrupt),
    Figure("gaps_total", "Times that pictures were lost.", lambda c: c.stream.gaps),
    Figure("attempts_total", "Times that it was opened.", lambda c: c.stream.attempts),
    Figure("selected_total", "Packets that the gate chose.", lambda c: c.selected),
    Figure("decoded_total", "Packets that were decoded.", lambda c: c.decoded),
    Figure("decode_failures_total", "Times that decoding failed.", lambda c: c.failures),
    Figure("decode_cpu_seconds_total", "CPU time of decoding.", lambda c: c.cpu_ms / 1e3),
    Figure("looks_total", "Frames that models looked at.", lambda c: c.looks),
    Figure("observed_total", "Dependencies that a stage looked at.", lambda c: c.observed),
    Figure("news_total", "Looks at which an answer was new.", lambda c: c.news),
    Figure("events_total", "Events.", lambda c: c.events),
    Figure("held_packets", "Compressed packets held.", lambda c: c.held_packets),
    Figure("held_bytes", "Bytes of these packets.", lambda c: c.held_bytes),
    Figure("look_age_seconds", "Since the last look.", lambda c: c.look_age_s),
    Figure("overdue", "1 if the budget left it waiting for too long.", lambda c: c.overdue),
    Figure("ungateable", "1 if it is decoded whole.", lambda c: c.whole is not None),
)


FILTER_FIGURES: tuple[tuple[str, str, Callable[[FilterStatus], float]], ...] = (
    ("passed_total", "Frames that the model looked at.", lambda f: f.passed),
    ("filtered_total", "Frames answered without the model.", lambda f: f.filtered),
    ("reused_total", "Of these, by an earlier result.", lambda f: f.reused),
    ("audited_total", "Frames that chance sent to the model.", lambda f: f.audited),
    ("wrong_total", "Audits that it would have answered otherwise.", lambda f: f.wrong),
    ("observed_total", "Dependencies of which it knew the answer.", lambda f: f.observed),
    ("failed_total", "Frames that it could not take.", lambda f: f.failed),
    ("samples_total", "Inputs kept to train another.", lambda f: f.samples),
    ("cpu_seconds_total", "CPU time of the filter.", lambda f: f.cpu_ms / 1e3),
    ("ms_per_frame", "CPU ms that it takes for a frame.", lambda f: f.ms_per_frame),
    ("rate", "Share of frames answered without the model.", lambda f: f.filter_rate),
    ("drifting", "1 if audits find it less accurate than promised.", lambda f: f.is_drifting),
)


STORE_FIGURES: tuple[tuple[str, str, Callable[[StoreStatus], float]], ...] = (
    ("events_total", "Events that were written.", lambda s: s.events),
    ("events_waiting", "Events that are not written yet.", lambda s: s.waiting),
    ("events_lost_total", "Events that were thrown away.", lambda s: s.events_lost),
    ("results_dropped_total", "Results that were thrown away.", lambda s: s.results_dropped),
    ("failures_total", "Times that it could not be written.", lambda s: s.failures),
    ("well", "1 unless it cannot be written.", lambda s: s.last_error is None),
)

OUTLET_FIGURES: tuple[tuple[str, str, Callable[[OutletStatus], float]], ...] = (
    ("well", "1 unless the other side takes nothing.", lambda o: o.well),
    ("sent_total", "Events that it took.", lambda o: o.sent),
    ("waiting", "Events that it has not taken yet.", lambda o: o.waiting),
    ("dropped_total", "Events that were thrown away.", lambda o: o.dropped),
    ("failures_total", "Tries that failed.", lambda o: o.failures),
)


class MetricsServer:
    """Answers scrapes with the status of the moment.

    Args:
        status: makes it; called from the server's threads.
        host: address to listen on.
        port: 0 for any.

    Raises:
        StateError: the port is taken.
    """

    def __init__(self, status: Callable[[], GatewayStatus], *, host: str, port: int) -> None:
        """Starts to listen."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(status))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise StateError(f"metrics cannot listen on {host}:{port}: {error}") from error
        self.port = int(self._server.server_port)

    def stop(self) -> None:
        """Stops to listen."""
        self._server.shutdown()
        self._server.server_close()
        if isinstance(self._thread, threading.Thread):
            self._thread.join()


class _Collector(Collector):
    def __init__(self, status: Callable[[], GatewayStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """The metrics of the moment."""
        status = self._status()
        yield from _of_cameras(status.cameras)
        yield from _of_gateway(status)


def _of_cameras(cameras: Sequence[CameraStatus]) -> Iterable[Metric]:
    states = GaugeMetricFamily(
        f"{PREFIX}state", "1 for the state that a camera is in.", labels=["camera", "state"]
    )
    for camera in cameras:
        for state in State:
            states.add_metric([camera.name, state.value], float(camera.stream.state is state))
    yield states
    for figure in FIGURES:
        kind = CounterMetricFamily if figure.name.endswith("_total") else GaugeMetricFamily
        name = PREFIX + figure.name.removesuffix("_total")
        family = kind(name, figure.help, labels=["camera"])
        for camera in cameras:
            family.add_metric([camera.name], float(figure.of(camera)))
        yield family


def _of_gateway(status: GatewayStatus) -> Iterable[Metric]:
    for name, says, value in (
        ("rounds", "Rounds.", status.rounds),
        ("late_rounds", "Rounds that began late by more than one.", status.late_rounds),
        ("decode_charged_cpu_seconds", "Charged to the budget.", status.charged_ms / 1e3),
        ("decode_granted_cpu_seconds", "Budget of all rounds.", status.granted_ms / 1e3),
        ("decode_lapsed_cpu_seconds", "Budget that nobody used.", status.lapsed_ms / 1e3),
        ("audited_groups", "Groups decoded whole to compare.", status.audited_groups),
        ("audit_cpu_seconds", "CPU time of that.", status.audit_ms / 1e3),
        ("frames_dropped", "Frames that models came too late for.", status.frames_dropped),
        ("write_failures", "Results that could not be written.", status.write_failures),
        ("events_dropped", "Events that nothing was free to take.", status.events_dropped),
        ("reloads", "Times that a new configuration was taken.", status.reloads),
    ):
        yield CounterMetricFamily(PREFIX + name, says, value=float(value))
    yield GaugeMetricFamily(
        f"{PREFIX}budget_cores", "Budget, in cores.", value=status.budget_cores
    )
    yield GaugeMetricFamily(
        f"{PREFIX}reload_refused",
        "1 if the last new configuration was wrong, and the old one runs.",
        value=float(status.refused is not None),
    )
    yield from _of_audits(status)
    yield from _of_filters(status.filters)
    if status.plan is not None:
        yield from _of_plan(status.plan)
    yield from _of_store(status.store)
    yield from _of_outlets(status.outlets)
    stages = CounterMetricFamily(
        f"{PREFIX}stage_cpu_seconds", "CPU time of a stage.", labels=["stage"]
    )
    errors = CounterMetricFamily(
        f"{PREFIX}stage_errors", "Batches that a stage failed on.", labels=["stage"]
    )
    for name, count in status.stages.items():
        stages.add_metric([name], count.cpu_ms / 1e3)
        errors.add_metric([name], count.errors)
    yield stages
    yield errors


def _of_store(store: StoreStatus | None) -> Iterable[Metric]:
    if store is None:
        return
    for name, says, of in STORE_FIGURES:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        value = float(of(store))
        yield kind(f"{PREFIX}store_{name.removesuffix('_total')}", says, value=value)


def _of_outlets(outlets: Sequence[OutletStatus]) -> Iterable[Metric]:
    for name, says, of in OUTLET_FIGURES:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(
            f"{PREFIX}outlet_{name.removesuffix('_total')}", says, labels=["kind", "outlet"]
        )
        for one in outlets:
            family.add_metric([one.kind, one.name], float(of(one)))
        yield family


def _of_filters(filters: Sequence[FilterStatus]) -> Iterable[Metric]:
    for name, says, of in FILTER_FIGURES:
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = kind(f"{PREFIX}filter_{name.removesuffix('_total')}", says, labels=["filter"])
        for one in filters:
            family.add_metric([one.name], float(of(one)))
        yield family
    accuracy = GaugeMetricFamily(
        f"{PREFIX}filter_accuracy", "Of the last audits.", labels=["filter", "value"]
    )
    for one in filters:
        if one.accuracy is not None:
            accuracy.add_metric([one.name, "share"], one.accuracy)
            accuracy.add_metric([one.name, "low"], one.accuracy_low)
            accuracy.add_metric([one.name, "high"], one.accuracy_high)
    yield accuracy


def _of_plan(plan: PlanStatus) -> Iterable[Metric]:
    names = (*plan.active, *plan.predicted)
    runs = GaugeMetricFamily(
        f"{PREFIX}plan_active", "1 if the model runs, 0 if links predict it.", labels=["model"]
    )
    failing = GaugeMetricFamily(
        f"{PREFIX}plan_failing", "1 if the model cannot be run now.", labels=["model"]
    )
    for name in names:
        runs.add_metric([name], float(name in plan.active))
        failing.add_metric([name], float(name in plan.failing))
    yield runs
    yield failing
    for kind, says, values in (
        ("measured", "Frames that the model looked at.", plan.measured),
        ("predictions", "Frames of which links predicted its output.", plan.predictions),
        ("failures", "Times that the model failed.", plan.failures),
        ("unanswered", "Frames of which nothing could be predicted.", plan.unanswered),
    ):
        counted = CounterMetricFamily(f"{PREFIX}plan_{kind}", says, labels=["model"])
        for name in names:
            counted.add_metric([name], float(values.get(name, 0)))
        yield counted
    confidence = GaugeMetricFamily(
        f"{PREFIX}plan_confidence", "Mean confidence of predictions.", labels=["model"]
    )
    for name, value in plan.confidence.items():
        confidence.add_metric([name], value)
    yield confidence
    yield GaugeMetricFamily(
        f"{PREFIX}plan_expected_accuracy",
        "Of the plan, over all of its models.",
        value=plan.expected_accuracy,
    )
    for kind, says, value in (
        ("profiles", "Times that all models were run to choose anew.", plan.profiles),
        ("switches", "Times that other models were chosen.", plan.switches),
        ("recorded", "Frames whose outputs of all models were recorded.", plan.recorded),
    ):
        yield CounterMetricFamily(f"{PREFIX}plan_{kind}", says, value=float(value))


def _of_audits(status: GatewayStatus) -> Iterable[Metric]:
    """Estimates with the ends of their 95 % intervals; nothing where nothing is known."""
    for name, says in (
        ("accuracy", "Pictures at which the held answer was right, by audits."),
        ("recall", "Changes that gating caught, by audits."),
    ):
        family = GaugeMetricFamily(f"{PREFIX}audit_{name}", says, labels=["task", "value"])
        for task, of in status.audits.items():
            estimate: Estimate = getattr(of, name)
            for value in ("share", "low", "high"):
                if estimate.share == estimate.share:
                    family.add_metric([task, value], getattr(estimate, value))
        yield family
