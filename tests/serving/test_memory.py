"""The memory of a cloud: models are loaded into it on demand, and make room for others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from triparty.cloud.serving.engine import Reply
from triparty.cloud.serving.hosting import LocalBackend, Models
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.serving import Serving
from triparty.cloud.serving.weights import weight_bytes
from triparty.common.errors import LimitError, TooLargeError

Run = Callable[[Coroutine[Any, Any, Any]], Any]
ROW_BYTES = 10
WEIGHTS = 1000


@pytest.fixture
def start(settings: Any, fake_engine: Any) -> Callable[..., Any]:
    """Makes an async context of a started `Serving`, whose cache rows have ten bytes."""
    fake_engine.info = replace(fake_engine.info, cache_row_bytes=ROW_BYTES)

    @asynccontextmanager
    async def started(**changes: Any) -> Any:
        serving = Serving(settings(**changes), load=lambda _: fake_engine)
        await serving.start()
        try:
            yield serving
        finally:
            await serving.stop()

    return started


@pytest.fixture
def model(published: Any, tmp_path: Path) -> Callable[[str], Any]:
    """A published model of 1000 bytes of weights."""

    def make(name: str, *, size: int = WEIGHTS) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(bytes(size))
        (folder / "tokenizer.json").write_bytes(bytes(5000))  # takes no memory of a model
        return published(folder=folder, name=name)

    return make


async def step(serving: Serving, session: str, position: int, count: int) -> None:
    rows, reply = np.ones((count, 4), np.float32), Reply.parse("hidden")
    await serving.step("a", session, StepRequest(position, f"at-{position}", reply, rows))


def loaded(serving: Serving) -> list[str]:
    return sorted(key.name for key in serving.counts())


def test_models_make_room_for_one_another_the_least_recently_asked_for_first(
    start: Any, model: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(max_memory_bytes=3 * WEIGHTS + 10) as serving:
            for name in ("one", "two", "three", "one"):
                opened = await serving.open_session("a", model(name))
                serving.close("a", opened.session)
            assert loaded(serving) == ["one", "three", "two"]
            held = await serving.open_session("a", model("four"))
            assert loaded(serving) == ["four", "one", "three"]
            totals = serving.totals()
            assert (totals.weight_bytes, totals.evicted_models) == (3 * WEIGHTS, 1)
            assert totals.memory_limit_bytes == 3 * WEIGHTS + 10
            in_use = [held.session]
            for name in ("one", "three"):
                in_use.append((await serving.open_session("a", model(name))).session)
            with pytest.raises(LimitError, match="1000 bytes of memory") as error:
                await serving.open_session("a", model("two"))
            assert error.value.extra["retry_after_s"] >= 1
            assert loaded(serving) == ["four", "one", "three"]
            serving.close("a", in_use[0])
            await serving.open_session("a", model("two"))
            assert loaded(serving) == ["one", "three", "two"]

    run(story())


def test_every_replica_counts(settings: Any, fake_engine: Any, model: Any, run: Run) -> None:
    class Twofold(LocalBackend):
        copies = 2

    async def story() -> None:
        chosen = settings(max_memory_bytes=2 * WEIGHTS)
        models = Models(chosen, backend=Twofold(chosen, load=lambda _: fake_engine))
        await models.host(model("one"), in_use=lambda _: True)
        assert models.weight_bytes == 2 * WEIGHTS
        with pytest.raises(TooLargeError, match="2002 bytes"):
            await models.host(model("large", size=WEIGHTS + 1), in_use=lambda _: True)
        await models.stop()

    run(story())


def test_a_model_that_never_fits_is_refused_and_unloads_nothing(
    start: Any, model: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(max_memory_bytes=1500) as serving:
            serving.close("a", (await serving.open_session("a", model("one"))).session)
            with pytest.raises(TooLargeError, match=r"1501 .* this cloud has 1500"):
                await serving.open_session("a", model("large", size=1501))
            assert loaded(serving) == ["one"]

    run(story())


def test_sessions_grow_into_the_memory_of_idle_models_and_no_further(
    start: Any, model: Any, run: Run
) -> None:
    async def story() -> None:
        async with start(max_memory_bytes=2 * WEIGHTS + 700) as serving:
            serving.close("a", (await serving.open_session("a", model("idle"))).session)
            session = (await serving.open_session("a", model("busy"))).session
            await step(serving, session, 0, 10)  # 64 rows are counted: 640 bytes
            assert loaded(serving) == ["busy", "idle"]
            await step(serving, session, 10, 50)  # 128 rows: 1280 bytes
            assert loaded(serving) == ["busy"]
            assert serving.totals().reserved_bytes == 1280
            with pytest.raises(LimitError, match="the session needs 1280 bytes"):
                await step(serving, session, 60, 20)  # 256 rows
            second = (await serving.open_session("a", model("busy"))).session
            with pytest.raises(LimitError, match="the session needs 640 bytes"):
                await step(serving, second, 0, 1)
            serving.close("a", session)
            await step(serving, second, 0, 1)
            assert serving.totals().reserved_bytes == 640

    run(story())


def test_a_model_that_made_room_before_its_first_session_is_loaded_again(
    settings: Any, model: Any, fake_engine: Any, run: Run
) -> None:
    """Another may ask for room between the end of a load and whoever waits for it."""
    loads = []

    def load(folder: Path) -> Any:
        loads.append(folder)
        return fake_engine

    async def story() -> None:
        models = Models(settings(), backend=LocalBackend(settings(), load=load))
        real = models._task

        async def evicted_once(key: Any, *rest: Any) -> Any:
            task = await real(key, *rest)
            if not loads:
                task.add_done_callback(
                    lambda _: (models._tasks.pop(key), models._weights.pop(key))
                )
            return task

        models._task = evicted_once
        hosted = await models.host(model("one"), in_use=lambda _: False)
        assert models.loaded() == [hosted]
        assert len(loads) == 2
        await models.stop()

    run(story())


def test_models_that_load_at_once_share_the_memory(start: Any, model: Any, run: Run) -> None:
    async def story() -> None:
        async with start(max_memory_bytes=2 * 1500 + 2 * 640) as serving:
            names = [model(name, size=1500) for name in ("one", "two", "three")]
            results = await asyncio.gather(
                *(serving.open_session("a", each) for each in names), return_exceptions=True
            )
            refused = [error for error in results if isinstance(error, LimitError)]
            assert len(refused) == 1
            assert len(loaded(serving)) == 2
            for opened in results:
                if not isinstance(opened, LimitError):
                    await step(serving, opened.session, 0, 1)  # on a model that is there

    run(story())


@pytest.mark.parametrize(
    ("stored", "said", "chosen", "expected"),
    [
        ("float32", "float32", None, 4),
        ("float32", "float16", None, 2),
        ("float16", None, None, 4),  # a configuration that says nothing means float32
        ("bfloat16", "bfloat16", None, 2),
        ("bfloat16", "bfloat16", "float32", 4),
        ("float32", "float32", "bfloat16", 2),
        ("float64", "float32", None, 4),
    ],
)
def test_weights_count_as_what_they_are_loaded_as(
    tmp_path: Path, stored: str, said: str | None, chosen: str | None, expected: int
) -> None:
    tensors = {
        "a": torch.zeros(30, 7, dtype=getattr(torch, stored)),
        "b": torch.zeros(11, dtype=getattr(torch, stored)),
        "c": torch.zeros(5, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    document = {} if said is None else {"torch_dtype": said}
    (tmp_path / "config.json").write_text(json.dumps(document))
    header = (tmp_path / "model.safetensors").stat().st_size - sum(
        tensor.nbytes for tensor in tensors.values()
    )
    assert weight_bytes(tmp_path, dtype=chosen) == 221 * expected + 40 + header


def test_memory_is_asked_for_in_the_type_that_the_operator_chose(
    start: Any, published: Any, tmp_path: Path, run: Run
) -> None:
    save_file({"a": torch.zeros(250, dtype=torch.float16)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"dtype": "float16"}')

    async def story() -> None:
        async with start(max_memory_bytes=700) as serving:
            await serving.open_session("a", published(tmp_path))
        async with start(max_memory_bytes=700, dtype="float32") as serving:
            with pytest.raises(TooLargeError, match="bytes of memory"):
                await serving.open_session("a", published(tmp_path))

    run(story())
