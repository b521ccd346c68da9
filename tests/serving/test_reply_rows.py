"""Replies about several rows, and steps that begin inside the one before.

Laws: what a reply says of N rows is what N steps of one row would have said, however the step
is cut; a step takes back rows of the last step alone, and only when it names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from served_app import make_app

from triparty.cloud.serving import Serving
from triparty.cloud.serving.engine import Reply
from triparty.cloud.serving.records import StepRequest
from triparty.common.errors import (
    CloudError,
    PositionError,
    RequestError,
    TooLargeError,
    from_problem,
)
from triparty.common.wire import Frame, decode_frames, encode_frames

Run = Callable[[Coroutine[Any, Any, Any]], Any]
ALICE = "device:alice"


def request(
    position: int,
    *values: float,
    count: int = 1,
    request_id: str = "",
    rollback_of: str | None = None,
    reply: str = "hidden",
) -> StepRequest:
    return StepRequest(
        position=position,
        request_id=request_id or f"at-{position}",
        reply=replace(Reply.parse(reply), rows=count),
        rows=np.array([[value] * 4 for value in values], np.float32),
        rollback_of=rollback_of,
    )


def sums(body: bytes) -> list[float]:
    """What the fake engine says: of each row, the sum of all up to it."""
    (frame,) = decode_frames(body, limit_bytes=1 << 16)
    return [float(row[0]) for row in frame.array]


@pytest.fixture
def start(settings: Any, fake_engine: Any) -> Callable[..., Any]:
    @asynccontextmanager
    async def started(**changes: Any) -> Any:
        serving = Serving(settings(**changes), load=lambda _: fake_engine)
        await serving.start()
        try:
            yield serving
        finally:
            fake_engine.gate.set()
            await serving.stop()

    return started


@pytest.fixture
def model(published: Any, tmp_path: Path) -> Any:
    return published(tmp_path)


@pytest.mark.parametrize("batch_rows", [2, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [1, 2, 5, 11])
def test_a_step_that_is_cut_answers_about_all_its_rows(
    start: Any, model: Any, fake_engine: Any, run: Run, batch_rows: int, count: int
) -> None:
    values = [2.0**n for n in range(11)]
    expected = np.cumsum(values)[-count:].tolist()

    async def story() -> None:
        async with start(max_batch_rows=batch_rows) as serving:
            name = (await serving.open_session(ALICE, model)).session
            answer = await serving.step(ALICE, name, request(0, *values, count=count))
            assert sums(answer.body) == expected
            cut = [work for batch in fake_engine.batches for work in batch]
            assert (len(cut) > 1) is (batch_rows < len(values))
            asked = [work.reply.rows for work in cut if work.reply is not None]
            assert sum(asked) == count

    run(story())


def test_the_cut_rows_of_others_are_not_mixed_in(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start(max_batch_rows=5) as serving:
            names = [(await serving.open_session(f"d:{n}", model)).session for n in range(3)]
            answers = await asyncio.gather(
                *(
                    serving.step(f"d:{n}", name, request(0, *[n + 1.0] * (7 + n), count=7))
                    for n, name in enumerate(names)
                )
            )
            for n, answer in enumerate(answers):
                ends = range(n + 1, 8 + n)
                assert sums(answer.body) == [(n + 1.0) * end for end in ends]

    run(story())


@pytest.mark.parametrize(
    ("bad", "kind", "word"),
    [
        (request(0, 1, 2, count=3), RequestError, "at most the 2 rows"),
        (request(0, *[1] * 20, count=9), TooLargeError, "at most 8 rows, got 9"),
        (request(0, *[1] * 8, count=8), TooLargeError, "128 bytes, limit 112"),
        (request(0, *[1] * 8, count=8, reply="topk=2"), TooLargeError, "limit 112"),
    ],
)
def test_more_rows_than_the_limits_are_refused_before_they_run(
    start: Any,
    model: Any,
    fake_engine: Any,
    run: Run,
    bad: StepRequest,
    kind: type[Exception],
    word: str,
) -> None:
    async def story() -> None:
        async with start(max_reply_rows=8, max_body_bytes=112) as serving:
            info = await serving.open_session(ALICE, model)
            assert info.reply_rows == 4  # of logits, 28 bytes each
            with pytest.raises(kind, match=word):
                await serving.step(ALICE, info.session, bad)
            assert not fake_engine.batches
            most = await serving.step(ALICE, info.session, request(0, *[1] * 7, count=7))
            assert sums(most.body) == [1, 2, 3, 4, 5, 6, 7]

    run(story())


def test_one_row_is_answered_whatever_its_size(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start(max_body_bytes=8) as serving:
            info = await serving.open_session(ALICE, model)
            assert info.reply_rows == 1
            assert sums((await serving.step(ALICE, info.session, request(0, 3))).body) == [3]

    run(story())


def test_a_step_may_begin_inside_the_last_one_if_it_names_it(
    start: Any, model: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, 4, request_id="a"))
            for wrong in (None, "b", "at-1"):
                step = request(1, 8, request_id="b", rollback_of=wrong)
                with pytest.raises(PositionError) as error:
                    await serving.step(ALICE, name, step)
                assert error.value.extra == {"position": 3}
            ahead = request(4, 8, request_id="b", rollback_of="a")
            with pytest.raises(PositionError):
                await serving.step(ALICE, name, ahead)
            step = request(1, 8, 16, request_id="b", rollback_of="a", count=2)
            answer = await serving.step(ALICE, name, step)
            assert (answer.position, sums(answer.body)) == (3, [9, 25])
            assert await serving.step(ALICE, name, step) is answer
            on = await serving.step(ALICE, name, request(3, 32, rollback_of="b"))
            assert sums(on.body) == [57]

    run(story())


def test_a_late_copy_of_a_step_takes_nothing_back(start: Any, model: Any, run: Run) -> None:
    """A position comes again; the name of a step does not."""

    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, 4, request_id="a"))
            late = request(1, 8, 16, request_id="b", rollback_of="a")
            await serving.step(ALICE, name, late)
            await serving.step(ALICE, name, request(2, 32, request_id="c", rollback_of="b"))
            with pytest.raises(PositionError):  # the session is at 3 again, as it was before
                await serving.step(ALICE, name, late)
            assert sums((await serving.step(ALICE, name, request(3, 0))).body) == [41]

    run(story())


def test_a_step_that_fails_has_taken_back_what_it_said(
    start: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, 4, request_id="a"))
            fake_engine.error = RuntimeError("halfway")
            step = request(1, 8, request_id="b", rollback_of="a")
            with pytest.raises(CloudError):
                await serving.step(ALICE, name, step)
            with pytest.raises(PositionError) as error:
                await serving.step(ALICE, name, request(3, 8, request_id="c"))
            assert error.value.extra == {"position": 1}
            assert sums((await serving.step(ALICE, name, step)).body) == [9]

    run(story())


def test_after_a_rollback_no_step_can_be_named(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start() as serving:
            name = (await serving.open_session(ALICE, model)).session
            await serving.step(ALICE, name, request(0, 1, 2, 4, request_id="a"))
            await serving.rollback(ALICE, name, 2)
            step = request(1, 8, request_id="b", rollback_of="a")
            with pytest.raises(PositionError):
                await serving.step(ALICE, name, step)

    run(story())


@pytest.fixture
def one_model(tiny_folders: dict[str, Path]) -> Path:
    return tiny_folders["llama"]


def test_rows_and_rollbacks_over_http(
    one_model: Path, settings: Any, published: Any, reference_of: Any, run: Run
) -> None:
    sent = np.random.default_rng(0).normal(size=(9, 32)).astype(np.float32)
    expected = reference_of(one_model).logits(sent)

    async def story() -> None:
        serving = Serving(settings(max_batch_rows=4))
        await serving.start()
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(serving, published(one_model))),
            base_url="http://cloud/v1",
            headers={"Authorization": "Bearer alice"},
        )
        opened = (await client.post("/models/story/sessions", json={})).json()
        assert opened["limits"]["reply_rows"] == 64

        async def step(position: int, rows: Any, **headers: str) -> httpx.Response:
            said = {
                "Triparty-Position": str(position),
                "Triparty-Request-Id": f"at-{position}",
                "Triparty-Reply": "logits",
            }
            return await client.post(
                f"/sessions/{opened['session']}/step",
                content=encode_frames(Frame.of(rows)),
                headers=said
                | {f"Triparty-{n.replace('_', '-')}": v for n, v in headers.items()},
            )

        wrong = np.concatenate([sent[:5], np.ones((2, 32), np.float32)])
        answer = await step(0, wrong, Reply_Rows="3")
        (frame,) = decode_frames(answer.content, limit_bytes=1 << 20)
        np.testing.assert_allclose(frame.array[0], expected[4], rtol=1e-4, atol=1e-4)
        assert frame.array.shape == (3, 61)
        answer = await step(5, sent[5:], Reply_Rows="4", Rollback_Of="at-0", Reply="topk=2")
        assert answer.headers["Triparty-Position"] == "9"
        values, indices = decode_frames(answer.content, limit_bytes=1 << 20)
        assert values.array.shape == (4, 2)
        np.testing.assert_array_equal(indices.array, np.argsort(-expected[5:])[:, :2])
        for headers, slug in (
            ({"Reply_Rows": "0"}, "request"),
            ({"Reply_Rows": "-1"}, "request"),
            ({"Reply_Rows": "x"}, "request"),
            ({"Reply_Rows": ""}, "request"),
            ({"Reply_Rows": "2"}, "request"),
            ({"Rollback_Of": ""}, "request"),
            ({"Rollback_Of": "a" * 65}, "request"),
        ):
            answer = await step(9, sent[:1], **headers)
            problem = from_problem(answer.status_code, answer.json())
            assert problem.slug == slug, headers
        await serving.stop()

    run(story())
