"""The law of the packed engine: each session's answers are those of the stock model alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.cloud.serving import local
from triparty.cloud.serving.engine import Reply, ReplyKind, Work
from triparty.cloud.serving.loading import load_model
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement
from triparty.cloud.serving.text import TextRules
from triparty.common.errors import CheckpointError, CloudError

LOGITS = Reply.parse("logits")
Rows = NDArray[np.float32]
TOLERANCE = 1e-5


def relative_error(expected: Rows, got: Rows) -> float:
    return float(np.abs(expected - got).max() / np.abs(expected).max())


@pytest.fixture
def engine(tiny_folder: Path) -> LocalEngine:
    return LocalEngine.load(tiny_folder)


def random_rows(rng: np.random.Generator, count: int, width: int = 32) -> Rows:
    return rng.normal(size=(count, width)).astype(np.float32)


def last_logits(engine: LocalEngine, session: str, position: int, rows: Rows) -> Rows:
    ((answer,),) = engine.run([Work(session, position, rows, LOGITS)])
    logits: Rows = answer[0]
    return logits


def test_a_packed_batch_equals_each_session_alone(engine: LocalEngine, reference: Any) -> None:
    rng = np.random.default_rng(1)
    lengths = [1, 7, 64, 3, 130]
    sequences = [random_rows(rng, length + 10) for length in lengths]
    expected = [reference.logits(rows) for rows in sequences]
    at = [0] * len(lengths)
    for step in range(6):
        counts = [lengths[i] if step == 0 else 1 + (i + step) % 2 for i in range(len(lengths))]
        works = [
            Work(str(i), at[i], sequences[i][at[i] : at[i] + counts[i]], LOGITS)
            for i in range(len(lengths))
        ]
        for i, (logits,) in enumerate(engine.run(works)):
            at[i] += counts[i]
            assert relative_error(expected[i][at[i] - 1], logits[0]) < TOLERANCE


def greedy_together(
    engine: LocalEngine,
    embeddings: Rows,
    prompts: list[list[int]],
    count: int,
    *,
    apart: int = 3,
) -> list[list[int]]:
    """Greedy answers; session i joins at batch i * apart and leaves when it has its answer."""
    pending = [list(prompt) for prompt in prompts]
    at = [0] * len(prompts)
    answers: list[list[int]] = [[] for _ in prompts]
    for batch in range(count + apart * len(prompts)):
        live = [
            i for i in range(len(prompts)) if batch >= apart * i and len(answers[i]) < count
        ]
        works = [Work(str(i), at[i], embeddings[pending[i]], Reply.parse("id")) for i in live]
        for i, (ids,) in zip(live, engine.run(works) if works else [], strict=True):
            at[i] += len(pending[i])
            pending[i] = [int(ids[0])]
            answers[i] += pending[i]
            if len(answers[i]) == count:
                engine.close(str(i))
    return answers


def test_greedy_ids_are_equal_while_sessions_join_and_leave(
    engine: LocalEngine, reference: Any
) -> None:
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 50, size=length).tolist() for length in (5, 1, 33, 12)]
    expected = [reference.greedy(prompt, 55) for prompt in prompts]
    assert greedy_together(engine, reference.embeddings, prompts, 55) == expected
    assert engine.cache_bytes == 0


@pytest.mark.parametrize(("name", "sessions"), [("stories260K", 32), ("gpt2-capp", 8)])
def test_real_sessions_say_what_each_says_alone(
    name: str, sessions: int, data_folder: Path, reference_of: Callable[[Path], Any]
) -> None:
    """All of them are in one batch for the last few tokens of the first."""
    folder = data_folder / "models" / name
    engine, reference = LocalEngine.load(folder), reference_of(folder)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(3, 50, size=1 + 5 * n).tolist() for n in range(sessions)]
    expected = [reference.greedy(prompt, 40) for prompt in prompts]
    assert greedy_together(engine, reference.embeddings, prompts, 40, apart=1) == expected


@pytest.mark.parametrize("chunks", [[100], [1] * 100, [33, 1, 66], [99, 1]])
def test_a_chunked_prompt_equals_a_whole_one(
    engine: LocalEngine, reference: Any, chunks: list[int]
) -> None:
    rows = random_rows(np.random.default_rng(4), 100)
    position = 0
    for chunk in chunks:
        part = rows[position : position + chunk]
        is_last = position + chunk == len(rows)
        (answer,) = engine.run([Work("s", position, part, LOGITS if is_last else None)])
        assert bool(answer) is is_last
        position += chunk
    assert relative_error(reference.logits(rows)[-1], answer[0][0]) < TOLERANCE


def test_rolled_back_rows_leave_no_trace(engine: LocalEngine, reference: Any) -> None:
    rng = np.random.default_rng(5)
    kept, dropped, new = random_rows(rng, 20), random_rows(rng, 90), random_rows(rng, 6)
    last_logits(engine, "s", 0, np.concatenate([kept, dropped]))
    got = last_logits(engine, "s", 20, new)
    expected = reference.logits(np.concatenate([kept, new]))[-1]
    assert relative_error(expected, got) < TOLERANCE
    wrong = reference.logits(np.concatenate([kept, dropped[:1], new]))[-1]
    assert relative_error(wrong, got) > 100 * TOLERANCE  # the test can tell


def test_a_fork_goes_on_alone(engine: LocalEngine, reference: Any) -> None:
    rng = np.random.default_rng(6)
    shared, left, right = (random_rows(rng, count) for count in (70, 5, 5))
    last_logits(engine, "source", 0, shared)
    engine.fork("source", "target", position=50)
    right_logits = last_logits(engine, "target", 50, right)
    left_logits = last_logits(engine, "source", 70, left)
    engine.close("source")
    expected = reference.logits(np.concatenate([shared, left]))[-1]
    assert relative_error(expected, left_logits) < TOLERANCE
    expected = reference.logits(np.concatenate([shared[:50], right]))[-1]
    assert relative_error(expected, right_logits) < TOLERANCE
    again = last_logits(engine, "target", 50, right)
    assert relative_error(right_logits, again) < TOLERANCE


def test_a_fork_of_an_empty_session_is_empty(engine: LocalEngine, reference: Any) -> None:
    rows = random_rows(np.random.default_rng(7), 4)
    engine.fork("source", "target", position=0)
    got = last_logits(engine, "target", 0, rows)
    assert relative_error(reference.logits(rows)[-1], got) < TOLERANCE


def test_replies_agree_with_each_other(engine: LocalEngine, reference: Any) -> None:
    rows = random_rows(np.random.default_rng(8), 9)
    wanted = ("logits", "hidden", "topk=5", "id")
    works = [Work(name, 0, rows, Reply.parse(name)) for name in wanted]
    (logits,), (hidden,), (values, indices), (best,) = engine.run(works)
    assert logits.shape == (1, engine.info.vocabulary)
    assert hidden.shape == (1, engine.info.width)
    assert {array.dtype for array in (logits, hidden, values)} == {np.dtype(np.float32)}
    assert {array.dtype for array in (indices, best)} == {np.dtype(np.int32)}
    order = np.argsort(-logits[0])[:5]
    assert indices[0].tolist() == order.tolist()
    assert np.allclose(values[0], logits[0][order])
    assert best.tolist() == [order[0]]
    head = reference.model.get_output_embeddings().weight.detach().numpy()
    expected = head @ hidden[0]
    if bound := getattr(reference.model.config, "final_logit_softcapping", None):
        expected = bound * np.tanh(expected / bound)
    assert relative_error(expected, logits[0]) < TOLERANCE


@pytest.mark.parametrize("head_rows", [1, 6])
def test_replies_about_several_rows_are_those_of_single_ones(
    engine: LocalEngine, reference: Any, monkeypatch: pytest.MonkeyPatch, head_rows: int
) -> None:
    monkeypatch.setattr(local, "HEAD_ROWS", head_rows)
    rng = np.random.default_rng(12)
    wanted = {"logits": 5, "hidden": 3, "topk=4": 2, "id": 7, "": 0, "logits ": 1}
    sequences = [random_rows(rng, 7 + n) for n in range(len(wanted))]
    works = [
        Work(name, 0, rows, replace(Reply.parse(name.strip()), rows=count) if count else None)
        for (name, count), rows in zip(wanted.items(), sequences, strict=True)
    ]
    ran: list[int] = []
    head = engine._logits
    monkeypatch.setattr(engine, "_logits", lambda x: (ran.append(len(x)), head(x))[1])
    replies = engine.run(works)
    assert sum(ran) == 15
    assert max(ran) <= max(7, head_rows), "the head's rows are bounded"
    for (name, count), rows, arrays in zip(wanted.items(), sequences, replies, strict=True):
        states, logits = (array[len(rows) - count :] for array in reference.run(rows))
        match name.strip():
            case "logits":
                assert arrays[0].shape == logits.shape
                assert relative_error(logits, arrays[0]) < TOLERANCE
            case "hidden":
                assert arrays[0].shape == states.shape
                assert relative_error(states, arrays[0]) < TOLERANCE
            case "topk=4":
                order = np.argsort(-logits)[:, :4]
                np.testing.assert_array_equal(arrays[1], order)
                best = np.take_along_axis(logits, order, 1)
                np.testing.assert_allclose(arrays[0], best, rtol=1e-4, atol=1e-4)
            case "id":
                np.testing.assert_array_equal(arrays[0], logits.argmax(-1))
            case _:
                assert arrays == ()


def test_a_session_without_its_rows_is_an_error(engine: LocalEngine) -> None:
    with pytest.raises(CloudError, match="cache has 0 rows"):
        last_logits(engine, "lost", 5, random_rows(np.random.default_rng(9), 1))


def test_a_failed_batch_harms_no_session(
    engine: LocalEngine, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(10)
    first, second = random_rows(rng, 6), random_rows(rng, 3)
    last_logits(engine, "s", 0, first)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("halfway")

    last_layer = [m for m in engine._model.modules() if hasattr(m, "layer_idx")][-1]
    monkeypatch.setattr(last_layer, "forward", fails)
    with pytest.raises(RuntimeError, match="halfway"):
        last_logits(engine, "s", 6, second)
    monkeypatch.undo()
    got = last_logits(engine, "s", 6, second)
    expected = reference.logits(np.concatenate([first, second]))[-1]
    assert relative_error(expected, got) < TOLERANCE


def test_the_cache_grows_without_a_copy_per_step(engine: LocalEngine) -> None:
    rows = random_rows(np.random.default_rng(11), 300)
    sizes = set()
    for position in range(300):
        last_logits(engine, "s", position, rows[position : position + 1])
        sizes.add(engine.cache_bytes)
    assert len(sizes) == 4  # 64, 128, 256 rows, and then no more than the model's 300


def test_what_a_row_takes_is_measured(engine: LocalEngine) -> None:
    """In all layers of every family; 64 rows are the first room of a cache."""
    assert engine.cache_bytes == 0  # the measurement left nothing
    width = engine.info.width
    for session in ("a", "b"):
        engine.run([Work(session, 0, np.zeros((3, width), np.float32), None)])
    assert engine.info.cache_row_bytes > 0
    assert engine.cache_bytes == 2 * 64 * engine.info.cache_row_bytes


def without_head(folder: Path) -> Any:
    """A loaded model whose head is zeros."""
    model = load_model(folder, placement=Placement("cpu"))
    model.get_output_embeddings().weight.data.zero_()
    return model


def test_a_model_whose_head_is_zeros_replies_hidden_states_alone(
    tiny_folder: Path, reference: Any
) -> None:
    """The hidden state is the one that the stock class gives to its head."""
    engine = LocalEngine(without_head(tiny_folder))
    assert engine.info.replies == (ReplyKind.HIDDEN,)
    assert LocalEngine.load(tiny_folder).info.replies == tuple(ReplyKind)
    rows = random_rows(np.random.default_rng(10), 9)
    ((hidden,),) = engine.run([Work("s", 0, rows, Reply.parse("hidden"))])
    states, _ = reference.run(rows)
    assert hidden.shape == (1, engine.info.width)
    assert relative_error(states[-1], hidden[0]) < TOLERANCE


def test_a_model_that_takes_words_needs_its_head(tiny_folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="with its head"):
        LocalEngine(without_head(tiny_folders["llama"]), text=TextRules(frozenset()))
