"""The law of the packed engine for every served family, and what breaks it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AttentionInterface

from triparty.cloud.serving import attention
from triparty.cloud.serving.attention import PackedBatch, Reach, Span, packed_attention
from triparty.cloud.serving.cache import SessionCache
from triparty.cloud.serving.engine import Reply, Work
from triparty.cloud.serving.families import FAMILIES
from triparty.cloud.serving.loading import load_model
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement

CPU = Placement("cpu")
Rows = NDArray[np.float32]
HIDDEN, LOGITS = Reply.parse("hidden"), Reply.parse("logits")

# RMSNorm and softmax are computed in float32 inside stock classes, whatever the model's dtype.
TOLERANCES = {torch.float64: 2e-6, torch.float32: 1e-5}

WINDOWED = ["gemma2", "gemma3_text", "mistral", "mixtral", "qwen2", "qwen3"]
EXPERTS = ["deepseek_v3", "mixtral"]


def engine_of(folder: Path, dtype: torch.dtype) -> LocalEngine:
    model = load_model(folder, placement=CPU)
    torch.nn.Module.to(model, dtype)
    return LocalEngine(model)


def error_of(expected: NDArray[Any], got: NDArray[Any]) -> float:
    return float(np.abs(expected - got).max() / np.abs(expected).max())


def worst_error(engine: LocalEngine, reference: Any, seed: int) -> float:
    """The largest relative error over a random life of several sessions.

    They join at different times, send chunks of different lengths, take rows back, fork;
    after every step the reply must be that of the stock model run on the session's rows.
    """
    rng = np.random.default_rng(seed)
    told: dict[str, Rows] = {}
    worst = 0.0
    for batch in range(12):
        if batch in (0, 1, 4, 7):
            told[f"new{batch}"] = np.zeros((0, 32), np.float32)
        if batch in (5, 8):
            source = max(told, key=lambda name: len(told[name]))
            cut = int(rng.integers(1, len(told[source])))
            engine.fork(source, f"fork{batch}", position=cut)
            told[f"fork{batch}"] = told[source][:cut]
        works = []
        for name, rows in told.items():
            if batch in (6, 9) and len(rows) > 2:
                rows = rows[: int(rng.integers(1, len(rows)))]
            count = int(rng.choice([1, 1, 2, 5, 17, 30]))
            new = rng.normal(size=(count, 32)).astype(np.float32)
            told[name] = np.concatenate([rows, new])
            works.append(Work(name, len(rows), new, HIDDEN if rng.random() < 0.5 else LOGITS))
        for work, (got,) in zip(works, engine.run(works), strict=True):
            hidden, logits = reference.run(told[work.session])
            expected = hidden if work.reply == HIDDEN else logits
            worst = max(worst, error_of(expected[-1], got[0]))
    assert max(map(len, told.values())) > 40  # longer than every window
    return worst


def test_every_served_family_is_tested(tiny_folders: dict[str, Path]) -> None:
    assert tiny_folders.keys() == FAMILIES.keys()


def test_serving_learns_the_model_s_sizes(tiny_folder: Path) -> None:
    info = LocalEngine.load(tiny_folder).info
    assert (info.width, info.positions) == (32, 300)
    assert info.vocabulary == (53 if info.family == "gpt2" else 61)
    assert info.family in tiny_folder.name


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_every_session_equals_the_stock_model_alone(
    tiny_folder: Path, reference_of: Callable[..., Any], dtype: torch.dtype
) -> None:
    engine, reference = engine_of(tiny_folder, dtype), reference_of(tiny_folder, dtype=dtype)
    assert worst_error(engine, reference, seed=1) <= TOLERANCES[dtype]


def replace_attention(monkeypatch: pytest.MonkeyPatch, **forced: Any) -> None:
    """Packed attention that is always told something else."""

    def deaf(*args: Any, **kwargs: Any) -> Any:
        return packed_attention(*args, **kwargs | forced)

    monkeypatch.setitem(AttentionInterface._global_mapping, attention.NAME, deaf)


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("change", ["none", "one more", "one less"])
def test_a_wrong_window_is_noticed(
    family: str,
    change: str,
    tiny_folders: dict[str, Path],
    reference_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tiny_folders[family]
    engine, reference = engine_of(folder, torch.float32), reference_of(folder)
    exact = Reach.of

    def wrong(*, window: int | None, **rest: Any) -> Reach:
        if window is not None:
            window = {"none": None, "one more": window + 1, "one less": window - 1}[change]
        return exact(window=window, **rest)

    monkeypatch.setattr(Reach, "of", wrong)
    assert worst_error(engine, reference, seed=1) > 1e-3


def test_an_ignored_bound_of_scores_is_noticed(
    tiny_folders: dict[str, Path],
    reference_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tiny_folders["gemma2"]
    engine, reference = engine_of(folder, torch.float32), reference_of(folder)
    replace_attention(monkeypatch, softcap=None)
    assert worst_error(engine, reference, seed=1) > 1e-3


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_an_ignored_bound_of_logits_is_noticed(
    family: str, tiny_folders: dict[str, Path], reference_of: Callable[..., Any]
) -> None:
    folder = tiny_folders[family]
    model = load_model(folder, placement=CPU)
    model.config.final_logit_softcapping = None
    assert worst_error(LocalEngine(model), reference_of(folder), seed=1) > 1e-3


def test_an_ignored_scale_of_scores_is_noticed(
    tiny_folders: dict[str, Path],
    reference_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tiny_folders["gemma3_text"]
    engine, reference = engine_of(folder, torch.float32), reference_of(folder)
    replace_attention(monkeypatch, scaling=None)
    assert worst_error(engine, reference, seed=1) > 1e-3


@pytest.mark.parametrize("family", EXPERTS)
@pytest.mark.parametrize(
    ("dtype", "implementation", "tolerance"),
    [("float32", "eager", 1e-5), ("bfloat16", "grouped_mm", 3e-2)],
)
def test_experts_answer_each_session_alike_in_any_company(
    family: str,
    dtype: str,
    implementation: str,
    tolerance: float,
    tiny_folders: dict[str, Path],
    copy_with: Callable[..., Path],
) -> None:
    model = load_model(copy_with(tiny_folders[family], dtype=dtype), placement=CPU)
    engine = LocalEngine(model)
    assert model.config._experts_implementation == implementation
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(20, 32)).astype(np.float32)
    ((alone,),) = engine.run([Work("alone", 0, rows, LOGITS)])
    for others in (1, 5):
        works = [
            Work(f"{others} {i}", 0, rng.normal(size=(9, 32)).astype(np.float32), LOGITS)
            for i in range(others)
        ]
        (*_, (together,)) = engine.run([*works, Work(f"with {others}", 0, rows, LOGITS)])
        assert error_of(alone, together) <= tolerance
        assert together.argmax() == alone.argmax()


@pytest.mark.parametrize("window", [1, 2, 3, 5, 8, None])
@pytest.mark.parametrize("position", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("rows", [1, 2, 6])
def test_a_row_sees_itself_and_what_its_window_holds(
    position: int, rows: int, window: int | None
) -> None:
    reach = Reach.of(position=position, rows=rows, window=window, device=torch.device("cpu"))
    end = position + rows
    if reach.mask is not None:
        seen = reach.mask
    elif rows == 1:
        seen = torch.ones(1, end - reach.first, dtype=torch.bool)
    else:
        assert reach.first == 0
        assert position == 0
        seen = torch.ones(rows, rows, dtype=torch.bool).tril()
    got = [[reach.first + int(j) for j in row.nonzero()] for row in seen]
    look_back = end if window is None else window
    assert got == [list(range(max(0, i + 1 - look_back), i + 1)) for i in range(position, end)]


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("rows", [1, 6])
def test_values_may_be_of_another_width_than_keys(
    rows: int, window: int | None, softcap: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, groups, width, value_width, position = 6, 3, 8, 5, 7
    end = position + rows
    query = torch.randn(1, heads, end, width, generator=generator)
    key = torch.randn(1, heads // groups, end, width, generator=generator)
    value = torch.randn(1, heads // groups, end, value_width, generator=generator)
    cache = SessionCache.empty(layers=1, most_rows=end)
    layer = torch.nn.Module()
    layer.layer_idx = 0

    def attend(start: int, stop: int) -> torch.Tensor:
        span = Span.of(position=start, rows=stop - start, cache=cache)
        new = (part[:, :, start:stop] for part in (query, key, value))
        options: dict[str, Any] = {"sliding_window": window, "softcap": softcap}
        output, _ = packed_attention(layer, *new, None, packed=PackedBatch([span]), **options)
        return output

    attend(0, position)
    got = attend(position, end)
    keys, values = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scores = query @ keys.transpose(2, 3) * width**-0.5
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    row, seen = torch.arange(end)[:, None], torch.arange(end)
    hidden = (seen > row) | (seen <= row - (window or end))
    expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ values
    torch.testing.assert_close(got, expected.transpose(1, 2)[:, position:])
