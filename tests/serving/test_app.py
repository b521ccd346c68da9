"""The session routes inside the cloud's own application: tokens, limits, problem documents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from triparty.cloud.accounts import issue_token, revoke
from triparty.cloud.app import create_app
from triparty.cloud.settings import CloudSettings
from triparty.cloud.state import utc_now
from triparty.cloud.tables import PrincipalRow
from triparty.common.wire import Frame, decode_frames, encode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]
DEVELOPER, DEVICE = "ed25519:developer", "ed25519:device"


class OneModel:
    """A catalog of one model, which every device may use."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def model_for(self, principal: object, name: str, *, version: int | None = None) -> Any:
        return self.model


@pytest.fixture
def cloud(tiny_folder: Path, published: Any, tmp_path: Path) -> Any:
    """An async context of the application and a client without a token."""

    @asynccontextmanager
    async def started() -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
        app = create_app(CloudSettings.load(None, data=tmp_path / "cloud", threads=1))
        app.state.catalog = OneModel(published(tiny_folder))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://cloud/v1") as http,
        ):
            yield app, http

    (tmp_path / "cloud").mkdir()
    return started


def token_of(app: Any, principal: str, role: str) -> dict[str, str]:
    """The header of a new token, and its account if there is none."""
    now = utc_now()
    with app.state.database.writing() as session:
        row = session.get(PrincipalRow, principal)
        if row is None:
            owner = DEVELOPER if role == "device" else principal
            row = PrincipalRow(
                id=principal, role=role, developer=owner, name=principal, created=now
            )
            session.add(row)
            session.flush()
        token = issue_token(session, row, life=timedelta(days=1), now=now).token
    return {"Authorization": f"Bearer {token}"}


def step_headers(position: int) -> dict[str, str]:
    return {
        "Triparty-Position": str(position),
        "Triparty-Request-Id": f"at-{position}",
        "Triparty-Reply": "logits",
    }


def test_a_device_with_a_token_is_served_until_it_is_revoked(
    cloud: Any, reference: Any, run: Run
) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)
    body = encode_frames(Frame.of(rows))

    async def story() -> None:
        async with cloud() as (app, http):
            developer = token_of(app, DEVELOPER, "developer")
            device = token_of(app, DEVICE, "device")
            url = "/models/story/sessions"
            assert (await http.post(url, json={})).status_code == 401
            assert (await http.post(url, json={}, headers=developer)).status_code == 403
            opened = await http.post(url, json={}, headers=device)
            assert opened.status_code == 201, opened.text
            step = f"/sessions/{opened.json()['session']}/step"
            answer = await http.post(step, content=body, headers=device | step_headers(0))
            assert answer.status_code == 200, answer.text
            (frame,) = decode_frames(answer.content, limit_bytes=10_000)
            expected = reference.logits(rows)[-1]
            assert np.allclose(frame.array[0], expected, rtol=1e-4, atol=1e-4)
            wrong = await http.post(step, content=body, headers=device | step_headers(7))
            assert (wrong.status_code, wrong.json()["position"]) == (409, 20)
            assert wrong.headers["Content-Type"] == "application/problem+json"
            with app.state.database.writing() as session:
                revoke(session, session.get_one(PrincipalRow, DEVICE), now=utc_now())
            closed = await asyncio.to_thread(app.state.serving.close_sessions_of, DEVICE)
            assert closed == 1
            gone = await http.post(step, content=body, headers=device | step_headers(20))
            assert gone.status_code == 401

    run(story())


def test_too_many_sessions_are_told_when_to_come_back(cloud: Any, run: Run) -> None:
    async def story() -> None:
        async with cloud() as (app, http):
            device = token_of(app, DEVELOPER, "developer") and token_of(app, DEVICE, "device")
            url = "/models/story/sessions"
            answers = [await http.post(url, json={}, headers=device) for _ in range(17)]
            assert [answer.status_code for answer in answers] == [201] * 16 + [429]
            assert 0 < int(answers[-1].headers["Retry-After"]) <= 600

    run(story())
