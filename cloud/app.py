"""The cloud as an ASGI application: what it is made of, in one place.

A request passes `Observed` (id, log, metrics, last catch) -> `Drainable` -> `Guarded` (failures
of an address) -> `Bounded` (limits) -> the route, whose dependencies say who asks
(`auth.require`). Every error ends in `problems`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version

from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from triparty.cloud import account_routes, artifacts, blob_routes, enroll, health, scrape
from triparty.cloud.accounts import check_alive, live_tokens
from triparty.cloud.attempts import Attempts, Guarded
from triparty.cloud.auth import MOST_FAMILIAR, TokenCache
from triparty.cloud.blob_stores import open_blob_store
from triparty.cloud.catalog import Catalog
from triparty.cloud.database import Database
from triparty.cloud.drain import Drain, Drainable
from triparty.cloud.jobs import routes as job_routes
from triparty.cloud.jobs.keeper import Jobs
from triparty.cloud.metrics import Metrics
from triparty.cloud.middleware import Bounded, Observed
from triparty.cloud.page.app import OPERATOR_PATH, create_page
from triparty.cloud.problems import PROBLEM_RESPONSES, add_handlers
from triparty.cloud.rates import RequestRates
from triparty.cloud.serving import Serving, completions, forward, routes
from triparty.cloud.serving.hosting import Backend, LocalBackend, ServableModel
from triparty.cloud.serving.ray_backend import RayBackend, check_ray
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import SessionKeeper, utc_now
from triparty.cloud.upkeep import Upkeep


def create_app(
    settings: CloudSettings,
    *,
    clock: Callable[[], datetime] = utc_now,
    serving: SessionKeeper | None = None,
) -> FastAPI:
    """The application of one data folder.

    Args:
        settings: from `load_settings`.
        clock: the time, aware; tests pass their own.
        serving: another engine than the settings'; tests pass their own.

    Raises:
        SettingsError: settings that this version cannot serve.
        StateError: the database cannot be opened.
    """
    check_engine(settings)
    app = FastAPI(
        title="triparty cloud",
        version=version("triparty"),
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        responses=PROBLEM_RESPONSES,
    )
    app.state.settings = settings
    app.state.clock = clock
    app.state.database = Database(settings.database_url)
    app.state.blobs = open_blob_store(settings, clock_s=lambda: clock().timestamp())
    app.state.upkeep = Upkeep(
        app.state.database,
        app.state.blobs,
        keep_s=settings.keep_uploads_days * 86400,
        clock_s=lambda: clock().timestamp(),
    )
    app.state.catalog = Catalog(
        app.state.database, app.state.blobs, settings.model_folder, clock=clock
    )
    app.state.catalog.drop_unfinished()
    app.state.catalog.remove_all_used()
    app.state.tokens = TokenCache()
    with app.state.database.reading() as session:
        for token in live_tokens(session, now=clock(), most=MOST_FAMILIAR):
            app.state.tokens.introduce(token, is_used=False)
    app.state.database.after_writing(app.state.tokens.forget_all)
    app.state.rates = RequestRates(
        per_principal=settings.requests_per_s_per_principal,
        per_developer=settings.requests_per_s_per_developer,
    )
    app.state.serving = serving or Serving(settings, backend=_backend(settings))
    app.state.jobs = Jobs(settings, app.state.database, clock=clock)
    app.state.metrics = Metrics()
    app.state.drain = Drain()
    app.state.serving.ask_before_opening(_admission(app.state.database, app.state.catalog))
    app.state.serving.after_use(app.state.catalog.remove_used)
    app.state.is_ready = False
    app.state.started = clock()
    # In the order in which paths are compared: those of every token first.
    for module in (
        routes,
        completions,
        forward,
        health,
        scrape,
        enroll,
        account_routes,
        blob_routes,
        artifacts,
        job_routes,
    ):
        app.include_router(module.router)
    app.mount(OPERATOR_PATH, create_page(app.state))
    add_handlers(app)
    app.add_middleware(Bounded, settings=settings)
    app.add_middleware(
        Guarded,
        requests=Attempts(settings.failures_per_minute, clock_s=lambda: clock().timestamp()),
        enrolments=Attempts(
            settings.enrolments_per_minute, clock_s=lambda: clock().timestamp()
        ),
        tokens=app.state.tokens,
    )
    if settings.trusted_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxies)
    app.add_middleware(Drainable, drain=app.state.drain)
    app.add_middleware(Observed, metrics=app.state.metrics)  # added last: outermost
    return app


def check_engine(settings: CloudSettings) -> None:
    """Raises `SettingsError` for an engine or a device that is not here."""
    if settings.engine == "ray":
        check_ray(settings)
    elif settings.device.startswith("cuda") or settings.max_memory:
        from triparty.cloud.serving.placement import Placement

        Placement.of(settings)


def _backend(settings: CloudSettings) -> Backend:
    return RayBackend(settings) if settings.engine == "ray" else LocalBackend(settings)


def _admission(store: Database, catalog: Catalog) -> Callable[[str, ServableModel], None]:
    """Raises for a principal that was revoked meanwhile, and for a model that was used up."""

    def admit(principal: str, model: ServableModel) -> None:
        with store.reading() as session:
            check_alive(session, principal)
        catalog.admit(principal, model)

    return admit


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    try:
        async with app.state.upkeep.going_on(), app.state.jobs.going_on():
            await app.state.serving.start()
            app.state.is_ready = True
            try:
                yield
            finally:
                app.state.is_ready = False
                await app.state.serving.stop()
    finally:
        app.state.database.close()
