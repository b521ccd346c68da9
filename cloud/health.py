"""Is it alive, is it ready: for load balancers and for scripts that wait."""

from __future__ import annotations

from fastapi import APIRouter, Request

from triparty.cloud.state import Store
from triparty.common.errors import UnavailableError

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request, store: Store) -> dict[str, str]:
    """200 when requests will be served, else 503."""
    if request.app.state.drain.is_draining:
        raise UnavailableError("the cloud is draining")
    if not request.app.state.is_ready:
        raise UnavailableError("the cloud is starting or has stopped")
    store.check()
    return {"status": "ready"}
