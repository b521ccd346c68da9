"""The law of the packed engine for encoders with decoders, and what breaks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_seq2seq import KINDS, WIDTH, tiny_seq2seq
from transformers import AttentionInterface, AutoModelForSeq2SeqLM

from triparty.cloud.serving import cross_attention
from triparty.cloud.serving.cross_attention import packed_cross_attention
from triparty.cloud.serving.engine import Reply, Work
from triparty.cloud.serving.families import SEQ2SEQ_TYPES
from triparty.cloud.serving.loading import load_seq2seq
from triparty.cloud.serving.placement import Placement
from triparty.cloud.serving.records import StepRequest
from triparty.cloud.serving.seq2seq import Seq2SeqEngine
from triparty.cloud.serving.seq2seq_families import SEQ2SEQ
from triparty.cloud.serving.serving import Serving
from triparty.common.errors import (
    PositionError,
    RequestError,
    TooLargeError,
    UnsupportedModelError,
)

CPU = Placement("cpu")
HIDDEN, LOGITS = Reply.parse("hidden"), Reply.parse("logits")
TOLERANCES = {torch.float64: 2e-6, torch.float32: 1e-5}
Rows = NDArray[np.float32]
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: tiny_seq2seq(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def engine_of(folder: Path, dtype: torch.dtype = torch.float32) -> Seq2SeqEngine:
    model = load_seq2seq(folder, placement=CPU)
    torch.nn.Module.to(model, dtype)
    return Seq2SeqEngine(model)


class Stock:
    """The stock model run alone, without a cache."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(
            folder, dtype=dtype, attn_implementation="eager"
        )

    def run(self, source: Rows, rows: Rows) -> tuple[Rows, Rows]:
        """Hidden states (T, D) and logits (T, V)."""
        text, answer = (
            torch.tensor(each, dtype=self.model.dtype)[None] for each in (source, rows)
        )
        with torch.inference_mode():
            output = self.model(
                inputs_embeds=text,
                decoder_inputs_embeds=answer,
                output_hidden_states=True,
                use_cache=False,
            )
        hidden = output.decoder_hidden_states[-1]
        return hidden[0].numpy(), output.logits[0].numpy()


def error_of(expected: NDArray[Any], got: NDArray[Any]) -> float:
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def worst_error(engine: Seq2SeqEngine, stock: Stock) -> float:
    """The largest relative error over a random life of several sessions.

    They read texts of different lengths, join at different times, send chunks of different
    lengths, take rows back, fork, and one reads another text when it is back at the start.
    """
    rng = np.random.default_rng(1)

    def text(name: str) -> Rows:
        made = rng.normal(size=(int(rng.integers(1, 40)), WIDTH)).astype(np.float32)
        engine.read(name, made)
        return made

    texts: dict[str, Rows] = {}
    told: dict[str, Rows] = {}
    worst = 0.0
    for batch in range(9):
        if batch in (0, 1, 3):
            name = f"new{batch}"
            texts[name], told[name] = text(name), np.zeros((0, WIDTH), np.float32)
        if batch == 5:
            source = max(told, key=lambda name: len(told[name]))
            cut = int(rng.integers(1, len(told[source])))
            engine.fork(source, "fork", position=cut)
            texts["fork"], told["fork"] = texts[source], told[source][:cut]
        if batch == 7:
            texts["new1"], told["new1"] = text("new1"), np.zeros((0, WIDTH), np.float32)
        works = []
        for name, rows in told.items():
            if batch in (4, 6) and len(rows) > 2:
                rows = rows[: int(rng.integers(1, len(rows)))]
            count = int(rng.choice([1, 1, 2, 5, 17, 30]))
            new = rng.normal(size=(count, WIDTH)).astype(np.float32)
            told[name] = np.concatenate([rows, new])
            works.append(Work(name, len(rows), new, HIDDEN if rng.random() < 0.5 else LOGITS))
        for work, (got,) in zip(works, engine.run(works), strict=True):
            hidden, logits = stock.run(texts[work.session], told[work.session])
            expected = hidden if work.reply == HIDDEN else logits
            worst = max(worst, error_of(expected[-1], got[0]))
    assert max(map(len, told.values())) > 30  # longer than the distances that count
    return worst


def test_every_served_family_is_tested() -> None:
    assert set(SEQ2SEQ) == set(SEQ2SEQ_TYPES) == {"t5", "mt5"}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_session_equals_the_stock_model_alone(
    folders: dict[str, Path], kind: str, dtype: torch.dtype
) -> None:
    engine = engine_of(folders[kind], dtype)
    assert worst_error(engine, Stock(folders[kind], dtype)) <= TOLERANCES[dtype]


@pytest.mark.parametrize("broken", ["distances", "memory"])
def test_the_law_notices_what_is_left_out(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    engine = engine_of(folders["gated"])
    if broken == "distances":
        none = lambda rows, at: torch.zeros(1, 4, rows, at + rows)  # noqa: E731
        monkeypatch.setattr(engine, "_distances", none)
    else:
        read = engine.read
        monkeypatch.setattr(engine, "read", lambda name, rows: read(name, rows[:1]))
    assert worst_error(engine, Stock(folders["gated"], torch.float32)) > 1e-3


def test_stock_positions_and_masks_are_not_made_for_a_packed_batch(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the stock layers would make grows with the square of a batch."""
    seen: list[int] = []

    def watched(*args: Any, position_bias: torch.Tensor, **kwargs: Any) -> Any:
        assert args[4] is None
        seen.append(position_bias.numel())
        return packed_cross_attention(*args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, cross_attention.NAME, watched)
    engine = engine_of(folders["tied"])
    engine.read("a", np.zeros((3, WIDTH), np.float32))
    seen.clear()
    engine.run([Work("a", 0, np.zeros((200, WIDTH), np.float32), LOGITS)])
    assert seen
    assert max(seen) <= 4 * 200


@pytest.mark.parametrize(
    "changes", [{"is_encoder_decoder": False}, {"is_decoder": True}, {"auto_map": {"a": "b"}}]
)
def test_options_that_are_not_served_are_refused(
    folders: dict[str, Path], copy_with: Callable[..., Path], changes: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedModelError):
        load_seq2seq(copy_with(folders["tied"], **changes), placement=CPU)


def request(number: int, position: int, rows: Rows) -> StepRequest:
    return StepRequest(position, f"r{number}", LOGITS, rows)


def test_a_session_answers_what_it_was_given_to_read(
    folders: dict[str, Path], settings: Any, published: Any, run: Run
) -> None:
    """The source comes first, comes again at the start alone, and forks share it."""

    async def story() -> None:
        serving = Serving(settings(max_rows_per_step=50))
        await serving.start()
        rng = np.random.default_rng(2)
        source, other = (rng.normal(size=(9, WIDTH)).astype(np.float32) for _ in range(2))
        rows = rng.normal(size=(6, WIDTH)).astype(np.float32)
        stock = Stock(folders["gated"], torch.float32)
        model = published(folders["gated"])
        opened = await serving.open_session("p", model)
        at = opened.session
        with pytest.raises(RequestError, match="answers a text"):
            await serving.step("p", at, request(0, 0, rows))
        with pytest.raises(TooLargeError, match="51 rows"):
            await serving.read_source("p", at, np.zeros((51, WIDTH), np.float32))
        for wrong in (source[:, :-1], source[:0], source[0]):
            with pytest.raises(RequestError, match="a frame of shape"):
                await serving.read_source("p", at, wrong)
        assert await serving.read_source("p", at, other) == 9
        before = serving.totals().reserved_bytes
        assert await serving.read_source("p", at, source) == 9
        assert serving.totals().reserved_bytes == before > 0
        await serving.step("p", at, request(1, 0, rows[:4]))
        with pytest.raises(PositionError, match="before the first step"):
            await serving.read_source("p", at, other)
        fork = await serving.fork("p", at)
        await serving.rollback("p", at, 2)
        first = await serving.step("p", at, request(2, 2, rows[2:]))
        second = await serving.step("p", fork.session, request(3, 4, rows[4:]))
        expected = stock.run(source, rows)[1][-1]
        for stored in (first, second):
            got = np.frombuffer(stored.body[-4 * 61 :], np.float32)
            assert error_of(expected, got) <= 1e-5
        assert error_of(stock.run(other, rows)[1][-1], got) > 1e-3
        await serving.rollback("p", at, 0)
        await serving.read_source("p", at, other)
        again = await serving.step("p", at, request(4, 0, rows))
        got = np.frombuffer(again.body[-4 * 61 :], np.float32)
        assert error_of(stock.run(other, rows)[1][-1], got) <= 1e-5
        serving.close("p", at)
        serving.close("p", fork.session)
        await asyncio.sleep(0)
        await serving.stop()

    run(story())


def test_a_decoder_reads_no_text(
    tiny_folders: dict[str, Path], settings: Any, published: Any, run: Run
) -> None:
    async def story() -> None:
        serving = Serving(settings())
        await serving.start()
        opened = await serving.open_session("p", published(tiny_folders["llama"]))
        with pytest.raises(RequestError, match="has no encoder"):
            await serving.read_source("p", opened.session, np.zeros((2, 32), np.float32))
        await serving.stop()

    run(story())
