"""Attacks on caches, attention maps and answers, and what a linear map learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triparty.developer.audit import Scene
from triparty.developer.audit.attacks import AttentionMaps, Echo, Inversion, KvCache
from triparty.developer.audit.claims import UNKNOWN, Seen, Truth
from triparty.developer.audit.decoding import sessions
from triparty.developer.audit.knowledge import Knowledge, KnownRows, Table, given
from triparty.developer.audit.running import Running, logits

SCHEMES = ("permutation", "orthogonal")
MODELS = ("stories_model", "capp_model")


def few(scene: Scene, requests: int) -> Scene:
    """The scene with its first requests alone."""
    knowledge, truth = scene.knowledge, scene.truth
    return replace(
        scene,
        knowledge=replace(
            knowledge,
            traffic=knowledge.traffic[:requests],
            starts=knowledge.starts[:requests],
        ),
        truth=replace(truth, token_ids=truth.token_ids[:requests]),
    )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
def test_the_cache_gives_the_text_away(
    model: str, scheme: str, request: Any, scene_of: Any
) -> None:
    scene = few(scene_of(request.getfixturevalue(model), scheme=scheme), 16)
    attack = KvCache()
    assert attack.mount(scene.knowledge).score(scene.truth) == 1.0
    assert attack.mount(attack.control(scene.knowledge)).score(scene.truth) <= 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
def test_attention_maps_are_the_plain_ones_but_for_the_order_of_heads(
    model: str, scheme: str, request: Any, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(model), scheme=scheme)
    rows, ids = scene.knowledge.traffic[0], scene.truth.token_ids[0]
    keyed = Running(given(scene.knowledge.hosted)).read(rows).attention
    plain = Running(given(scene.knowledge.base)).append(ids.tolist()).attention
    assert np.abs(np.sort(keyed, axis=1) - np.sort(plain, axis=1)).max() < 1e-4
    assert np.abs(keyed - plain).max() > 0.1


def test_what_attention_shows_is_figures(capp_model: Path, scene_of: Any) -> None:
    knowledge = scene_of(capp_model, scheme="orthogonal").knowledge
    seen = AttentionMaps().mount(knowledge)
    assert isinstance(seen, Seen)
    assert 0.5 < seen.share <= 1
    assert seen.figures["rows that look at one other row above all"] == seen.share
    assert AttentionMaps().mount(AttentionMaps().control(knowledge)).share == 0.0


def planted(noise: float = 0.0) -> tuple[Knowledge, Truth]:
    """600 tokens under a matrix that is no rotation, 400 of them in the traffic."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 24)).astype(np.float32)
    keyed = (rows @ rng.normal(size=(24, 30)) + noise * rng.normal(size=(600, 30))).astype("f4")
    ids = np.arange(400)
    knowledge = Knowledge(
        (keyed[:400],),
        known=KnownRows(keyed[:400], rows[:400]),
        table=Table(rows, None),
        starts=(0,),
    )
    return knowledge, Truth((ids,), rows.astype(float), np.eye(24), np.arange(600), {})


@pytest.mark.parametrize(("pairs", "least", "most"), [(10, 0, 0.6), (32, 1, 1), (300, 1, 1)])
def test_any_linear_key_is_learned_from_as_many_pairs_as_coordinates(
    pairs: int, least: float, most: float
) -> None:
    knowledge, truth = planted()
    found = Inversion(pairs).mount(knowledge)
    assert least <= found.score(truth) <= most
    shuffled = Inversion(pairs).control(knowledge)
    assert Inversion(pairs).mount(shuffled).score(truth) <= 0.05


def test_rows_that_were_learned_from_do_not_count() -> None:
    knowledge, truth = planted()
    found = Inversion(100).mount(knowledge)
    assert int(found.fresh[0].sum()) == 300
    assert (found.token_ids[0][~found.fresh[0]] == UNKNOWN).all()
    assert Inversion(10_000).mount(knowledge).fresh[0].sum() == 40
    assert found.score(truth) == 1.0


def test_noise_stops_a_linear_map() -> None:
    knowledge, truth = planted(noise=100.0)
    assert Inversion(300).mount(knowledge).score(truth) <= 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("model", MODELS)
def test_half_of_the_text_teaches_the_rest(
    model: str, scheme: str, request: Any, scene_of: Any
) -> None:
    scene = scene_of(request.getfixturevalue(model), scheme=scheme)
    for attack, least in ((Inversion(), 1.0), (Inversion(blocks=1), 0.8)):
        assert attack.mount(scene.knowledge).score(scene.truth) >= least
        assert attack.mount(attack.control(scene.knowledge)).score(scene.truth) <= 0.1


def answered(scene: Scene, *, rows: int) -> Scene:
    """The first request of each session, and then what the model goes on with, greedily.

    What was asked is not scored: no answer came before it.
    """
    knowledge, truth = scene.knowledge, scene.truth
    model = given(knowledge.hosted).load()
    table, plain = truth.rows @ truth.key, given(knowledge.table)
    traffic, ids = [], []
    for requests in sessions(knowledge.traffic, knowledge.starts):
        text = knowledge.traffic[requests[0]]
        tokens = truth.token_ids[requests[0]].tolist()
        for _ in range(rows):
            answer = logits(model, text)[-1]
            token = int(np.argmax(answer[truth.vocabulary]))
            row = table[token]
            if plain.positions is not None:
                row = row + plain.positions[len(tokens)] @ truth.key
            text = np.vstack([text, row.astype(np.float32)])
            tokens.append(token)
        traffic.append(text)
        asked = len(tokens) - rows
        ids.append(np.array([UNKNOWN] * asked + tokens[asked:]))
    starts = (0,) * len(traffic)
    return replace(
        scene,
        knowledge=replace(knowledge, traffic=tuple(traffic), starts=starts),
        truth=replace(truth, token_ids=tuple(ids)),
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_greedy_answers_are_linked(scheme: str, capp_model: Path, scene_of: Any) -> None:
    scene = answered(scene_of(capp_model, scheme=scheme), rows=12)
    assert Echo().mount(scene.knowledge).score(scene.truth) >= 0.95


@pytest.mark.parametrize("scheme", SCHEMES)
def test_answers_that_come_back_are_linked(
    scheme: str, stories_model: Path, scene_of: Any
) -> None:
    scene = scene_of(stories_model, scheme=scheme)
    found = Echo().mount(scene.knowledge)
    assert found.score(scene.truth) >= 0.4
    assert Echo().mount(Echo().control(scene.knowledge)).score(scene.truth) <= 0.1


def test_scales_that_only_devices_undo_do_not_stop_it(
    stories_model: Path, scene_of: Any
) -> None:
    scene = scene_of(stories_model, scheme="permutation", head_scales=True)
    assert Echo().mount(scene.knowledge).score(scene.truth) >= 0.3
