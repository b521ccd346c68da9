"""`--engine ray`: models on replicas under Ray Serve, on this machine or on a cluster.

The one place in triparty whose internals pickle: Ray does, between the cloud's own processes,
which all run with the operator's rights and exchange nothing but rows, replies and settings.
So nobody else may speak to them. A Ray that this module starts listens on loopback alone, its
sockets and files lie in a folder of mode 0700, and every connection needs a random token (Ray's
own authentication), since other users of the machine reach loopback too. A cluster that the
operator started is joined only if it asks for a token.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from triparty.cloud.serving.engine import (
    Encoder,
    EncoderInfo,
    Engine,
    Loaded,
    ModelInfo,
    Passage,
    SeeingEngine,
)
from triparty.cloud.serving.replica import Answer, ReplicaSettings, Runner
from triparty.cloud.serving.settings import ServingSettings
from triparty.cloud.serving.worker import Tasks, shutting_down
from triparty.common.errors import SettingsError, UnavailableError, from_problem

_log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
STORE_BYTES = 512 << 20
CALLS = 10_000
"""Most calls of a replica's actor at a time; the cloud's own limits are far below."""
DRAIN_S = 3600.0
"""Longest time that Serve waits for sessions before it removes their replica."""
DOWNSCALE_S = 300.0
UPSCALE_S = 5.0
_AUTH_MODE, _AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_MANY_NODES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # read on Linux too


class ReplicaServer:
    """What Serve deploys: keeps a `Runner` in a process beside it, and its sessions counted."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, folder: str, settings: ReplicaSettings
    ) -> None:
        """Ready when the model is loaded, or known not to load."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        keep_port_shut()
        here = ray.get_runtime_context().get_node_id()
        accelerators = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self._runner = (
            ray.remote(Runner)
            .options(
                num_cpus=0,
                max_concurrency=CALLS,
                max_restarts=-1,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(here, soft=False),
                runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": accelerators}},
            )
            .remote(folder, settings)
        )
        await self.describe()

    async def describe(self) -> tuple[ModelInfo | EncoderInfo, ...] | Mapping[str, Any]:
        """See `Runner.describe`."""
        described: tuple[ModelInfo | EncoderInfo, ...] = await self._runner.describe.remote()
        return described

    async def hold(self) -> AsyncIterator[Any]:
        """Yields the runner, and stays open until it is cancelled."""
        await self.describe()
        yield self._runner
        await asyncio.Event().wait()

    async def whole(self, principal: str, passage: Passage) -> Answer:
        """See `Runner.whole`."""
        answer: Answer = await self._runner.whole.remote(principal, passage)
        return answer


class RayBackend:
    """See `hosting.Backend`."""

    def __init__(self, settings: ServingSettings) -> None:
        """Not started.

        Args:
            settings: limits, where weights go, and how many replicas.
        """
        self._settings = settings
        self._folder: Path | None = None
        self._failure: Exception | None = None
        self._is_settled, self._is_stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="ray", daemon=True)

    def start(self) -> None:
        """Begins to start Ray; requests need not wait for that, loads do.

        Raises:
            SettingsError: see `check_ray`.
        """
        check_ray(self._settings)
        self._thread.start()

    def _run(self) -> None:
        """Ray's life, in one thread: the system kills its processes when that thread ends."""
        try:
            self._connect()
        except Exception as error:  # noqa: BLE001 - the thread's edge: loads fail with it
            _log.exception("Ray did not start")
            self._failure = error
        self._is_settled.set()
        self._is_stopped.wait()
        import ray

        ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> None:
        """Returns when Ray runs.

        Raises:
            UnavailableError: it does not, or `stop` was called.
        """
        self._is_settled.wait()
        if self._is_stopped.is_set():
            raise shutting_down()
        if self._failure is not None:
            raise UnavailableError(
                "the cloud cannot run models now: its operator finds the reason in the log"
            ) from self._failure

    def _connect(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would report to its makers
        os.environ["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"  # it would take our SIGTERM
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        if self._settings.ray_address is None:
            self._start_own()
        else:
            self._join(self._settings.ray_address)
        from ray import serve

        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
        logging.getLogger("ray.serve").setLevel(logging.ERROR)

    def _start_own(self) -> None:
        # Ray reads these when it is first imported, and never again. Without the last one it
        # would listen on all interfaces, whatever address it is given.
        os.environ[_AUTH_MODE] = "token"
        os.environ.setdefault(_AUTH_TOKEN, secrets.token_hex(32))
        os.environ[_MANY_NODES] = "0"
        self._folder = Path(tempfile.mkdtemp(prefix="triparty-ray-"))
        import ray

        logging.getLogger("ray").setLevel(logging.ERROR)
        ray.init(
            include_dashboard=False,
            _node_ip_address=LOOPBACK,
            _temp_dir=str(self._folder / "ray"),  # which Ray opens to everybody
            object_store_memory=STORE_BYTES,
            configure_logging=False,
            log_to_driver=False,
        )

    def _join(self, address: str) -> None:
        import ray

        ray.init(address=address, configure_logging=False, log_to_driver=False)

    def load(self, folder: Path) -> Loaded:
        """Deploys a model and waits until its first replicas have loaded it."""
        self.wait()
        from ray import serve

        from triparty.cloud.serving.replicas import Replicas

        name = f"model-{secrets.token_hex(8)}"
        deployment = serve.deployment(ReplicaServer).options(
            name="replica",
            max_ongoing_requests=2 * self._settings.max_sessions,
            graceful_shutdown_timeout_s=DRAIN_S,
            ray_actor_options={"num_cpus": 0, "num_gpus": self._settings.replica_gpus},
            logging_config={"enable_access_log": False},
            **self._scale(),
        )
        bound = deployment.bind(str(folder), ReplicaSettings.of(self._settings))
        handle = serve.run(bound, name=name, route_prefix=None)

        def remove() -> None:
            serve.delete(name, _blocking=False)

        infos = handle.describe.remote().result()
        if isinstance(infos, Mapping):
            remove()
            raise from_problem(int(infos["status"]), infos)
        model: Any = Replicas(handle, infos[0], remove=remove)
        if len(infos) == 1:
            return cast(Engine, model)
        sight: Any = Replicas(handle, infos[1], remove=lambda: None)
        return SeeingEngine(model, sight)

    @property
    def copies(self) -> int:
        """One a replica, with all that load may add."""
        return max(self._settings.replicas, self._settings.max_replicas or 0)

    def _scale(self) -> dict[str, Any]:
        least, most = self._settings.replicas, self.copies
        if most == least:
            return {"num_replicas": least}
        scaling = {
            "min_replicas": least,
            "max_replicas": most,
            "target_ongoing_requests": self._settings.sessions_per_replica,
            "upscale_delay_s": UPSCALE_S,
            "downscale_delay_s": DOWNSCALE_S,
        }
        return {"autoscaling_config": scaling}

    def worker(self, loaded: Engine | Encoder, *, name: str) -> Tasks[Any]:
        """The replicas are their own worker."""
        return cast(Tasks[Any], loaded)

    def stop(self) -> None:
        """Ends Ray if it was started here, else the connection to it."""
        self._is_stopped.set()
        if self._thread.ident is not None:
            self._thread.join()


def keep_port_shut() -> None:
    """Keeps Serve from opening a port that asks for no token, in a replica's process.

    Each replica would serve gRPC on all interfaces, unauthenticated, and unpickle what comes
    (Ray 2.55: `Replica._on_initialized`, with no option against it). Handles do not use it.
    """
    from grpc.aio import _server

    def add_insecure_port(_: object, address: str) -> int:
        _log.debug("port left shut", extra={"address": address})
        return 0

    _server.Server.add_insecure_port = add_insecure_port


def check_ray(settings: ServingSettings) -> None:
    """Raises SettingsError unless Ray is installed and nobody else can speak to it."""
    if find_spec("ray") is None:
        raise SettingsError(
            "engine 'ray' needs Ray: pip install 'triparty[ray]', or use --engine local"
        )
    if settings.ray_address is not None and os.environ.get(_AUTH_MODE) != "token":
        raise SettingsError(
            f"ray_address {settings.ray_address}: who reaches a Ray cluster runs code on it: "
            "start the cluster with RAY_AUTH_MODE=token, and the cloud too, with its token in "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
