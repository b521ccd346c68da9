"""The routes of serving alone, with anybody's name as their token."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from triparty.cloud.accounts import Principal
from triparty.cloud.serving import Serving, completions, forward, routes
from triparty.common.errors import (
    NotFoundError,
    TripartyError,
    UnauthenticatedError,
    to_problem,
)


class FakeCatalog:
    """Everybody may use the models of a list; nobody anything else."""

    def __init__(self, models: Any) -> None:
        self.models = {model.name: model for model in models}

    def model_for(self, principal: Principal, name: str, *, version: int | None = None) -> Any:
        if name not in self.models:
            raise NotFoundError("no such model")
        return self.models[name]


def make_app(serving: Serving, *models: Any) -> FastAPI:
    app = FastAPI()
    for module in (routes, forward, completions):
        app.include_router(module.router)
    app.state.serving, app.state.catalog = serving, FakeCatalog(models)

    async def who(request: Request) -> Principal:
        name = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not name:
            raise UnauthenticatedError("no token")
        return Principal(id=name, role="device", developer="d", scopes=frozenset({"infer"}))

    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, TripartyError)
        return JSONResponse(to_problem(error), status_code=error.status)

    app.dependency_overrides[routes.may_infer] = who
    app.add_exception_handler(TripartyError, problem)
    return app
