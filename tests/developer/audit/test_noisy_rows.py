"""Noise hides rows from who lacks the key; the key itself it does not hide for long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from triparty.developer.audit.attacks.noisy_rows import NoisyRows
from triparty.developer.audit.attacks.rows_again import RowsAgain
from triparty.developer.audit.claims import UNKNOWN, Truth
from triparty.developer.audit.isometries import nearest_rotation
from triparty.developer.audit.knowledge import Knowledge, KnownRows, Table, given
from triparty.developer.audit.noisy import Mixture, Sent, signed_permutation

V, WIDTH = 200, 32


def planted(
    *,
    scheme: str = "orthogonal",
    noise: float,
    rows: int,
    known: int,
    width: int = WIDTH,
    places: int = 0,
) -> tuple[Knowledge, Truth]:
    """Traffic of Zipf's tokens under a fixed key and fresh noise, in texts of some places."""
    rng = np.random.default_rng(3)
    table = rng.normal(size=(V, WIDTH)) + 0.3 * rng.exponential(size=(V, WIDTH))
    prior = 1 / np.arange(1, V + 1)
    prior /= prior.sum()
    if scheme == "orthogonal":
        key = np.linalg.qr(rng.normal(size=(width, width)))[0][:WIDTH]
    else:
        key = np.eye(WIDTH)[rng.permutation(WIDTH)] * rng.choice([-1, 1], WIDTH)
    ids = rng.choice(V, size=rows, p=prior)
    positions = rng.normal(size=(places + 1, WIDTH)) + 0.3 * rng.exponential(size=WIDTH)
    added = positions[np.arange(rows) % places] if places else np.zeros((rows, WIDTH))
    plain = (table[ids] + added) @ key
    size = np.sqrt(np.square(plain).mean(axis=1, keepdims=True))
    sent = (plain + noise * size * rng.normal(size=plain.shape)).astype(np.float32)
    found, first = np.unique(ids, return_index=True)
    chosen = np.argsort(-prior[found])[:known]
    pairs = None
    if known:
        tokens = found[chosen]
        behind = (table[tokens] + added[first[chosen]]).astype(np.float32)
        pairs = KnownRows(sent[first[chosen]], behind, None if places else tokens)
    cuts = np.arange(places or rows // 2, rows, places or rows // 2)
    requests = tuple(np.split(sent, cuts))
    knowledge = Knowledge(
        requests,
        known=pairs,
        table=Table(table.astype(np.float32), positions.astype("f4") if places else None),
        noise=noise,
        unigrams=prior,
        starts=(0,) * len(requests),
    )
    return knowledge, Truth(tuple(np.split(ids, cuts)), table, key, np.arange(V), {})


@pytest.mark.parametrize("scheme", ["orthogonal", "permutation"])
@pytest.mark.parametrize(("noise", "known"), [(0.0, 0), (0.3, 0), (0.3, 16), (0.5, 32)])
def test_the_key_is_found_through_the_noise(scheme: str, noise: float, known: int) -> None:
    knowledge, truth = planted(scheme=scheme, noise=noise, rows=2000, known=known)
    assert NoisyRows().mount(knowledge).score(truth) > (0.98 if known else 0.9)


@pytest.mark.parametrize("scheme", ["orthogonal", "permutation"])
@pytest.mark.parametrize("known", [0, 16])
def test_the_key_is_found_beside_what_positions_add(scheme: str, known: int) -> None:
    knowledge, truth = planted(scheme=scheme, noise=0.3, rows=3000, known=known, places=40)
    assert NoisyRows().mount(knowledge).score(truth) > 0.98
    table = given(knowledge.table)
    blind = replace(knowledge, table=Table(table.rows, None))
    assert NoisyRows().mount(blind).score(truth) < 0.9
    later = replace(knowledge, starts=tuple(n + 1 for n in knowledge.starts))
    assert NoisyRows().mount(later).score(truth) < 0.6, "in their places alone"


def test_few_known_rows_give_a_permutation_that_is_no_rotation_yet() -> None:
    """Each known row says something about all coordinates, and about few directions."""
    shares = {
        scheme: NoisyRows().mount(knowledge).score(truth)
        for scheme in ("permutation", "orthogonal")
        for knowledge, truth in [planted(scheme=scheme, noise=0.3, rows=60, known=8)]
    }
    assert shares["permutation"] > 0.95
    assert shares["orthogonal"] < 0.8


def test_of_two_tokens_with_one_row_the_frequent_one_is_likelier() -> None:
    table = np.random.default_rng(0).normal(size=(4, 8))
    table[3] = table[1]
    mixture = Mixture.of(table, np.array([0.1, 0.2, 0.2, 0.5]), 0.1, None)
    assert mixture.tokens(Sent(table), np.eye(8)).tolist() == [0, 3, 2, 3]


def test_as_much_noise_as_signal_hides_no_row_from_a_known_key() -> None:
    knowledge, truth = planted(noise=1.0, rows=2000, known=150)
    assert NoisyRows().mount(knowledge).score(truth) > 0.9


def test_an_expanded_residual_is_found_in_its_wider_space() -> None:
    knowledge, truth = planted(noise=0.1, rows=2000, known=40, width=2 * WIDTH)
    assert NoisyRows().mount(knowledge).score(truth) > 0.98


def test_few_rows_and_no_known_one_are_too_little() -> None:
    knowledge, truth = planted(noise=1.0, rows=40, known=0)
    assert NoisyRows().mount(knowledge).score(truth) < 0.4


def test_noise_of_another_order_hides_the_rows() -> None:
    knowledge, truth = planted(noise=10.0, rows=2000, known=150)
    most_frequent = float(1 / (1 / np.arange(1, V + 1)).sum())
    assert NoisyRows().mount(knowledge).score(truth) < most_frequent + 0.1


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_random_rows_give_nothing(noise: float) -> None:
    knowledge, truth = planted(noise=noise, rows=400, known=16)
    even = replace(knowledge, unigrams=None)
    assert NoisyRows().mount(NoisyRows().control(even)).score(truth) < 0.1


def test_what_it_lacks() -> None:
    knowledge, _ = planted(noise=0.1, rows=10, known=0)
    attack = NoisyRows()
    assert attack.lacks(knowledge) is None
    assert "traffic" in str(attack.lacks(replace(knowledge, traffic=())))
    huge = Table(np.zeros((1 << 20, WIDTH), np.float32), None)
    assert "more than" in str(attack.lacks(replace(knowledge, table=huge)))
    narrow = Table(np.zeros((V, 2 * WIDTH), np.float32), None)
    assert "narrower" in str(attack.lacks(replace(knowledge, table=narrow)))


def test_the_nearest_keys_are_the_nearest() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    np.testing.assert_allclose(nearest_rotation(3.0 * turn), turn, atol=1e-12)
    swap = np.eye(9)[rng.permutation(9)] * rng.choice([-1, 1], 9)
    noisy = 5 * swap + rng.uniform(-1, 1, size=(9, 9))
    np.testing.assert_array_equal(signed_permutation(noisy), swap)


def test_likelihood_is_highest_under_the_right_key_which_alone_fits() -> None:
    knowledge, truth = planted(noise=0.3, rows=500, known=0)
    assert knowledge.unigrams is not None
    mixture = Mixture.of(truth.rows, knowledge.unigrams, 0.3, None)
    rows = Sent(knowledge.rows.astype(np.float64))
    other = np.linalg.qr(np.random.default_rng(9).normal(size=(WIDTH, WIDTH)))[0]
    assert mixture.likelihood(rows, truth.key) > mixture.likelihood(rows, other)
    assert mixture.fits(rows, truth.key)
    assert not mixture.fits(rows, other)


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_known_rows_are_read_wherever_they_come_again(noise: float) -> None:
    knowledge, truth = planted(noise=noise, rows=2000, known=10)
    attack = RowsAgain()
    assert attack.lacks(knowledge) is None
    claim = attack.mount(knowledge)
    ids, found = np.concatenate(truth.token_ids), np.concatenate(claim.token_ids)
    assert knowledge.known is not None
    known = np.isin(ids, knowledge.known.token_ids)
    assert (found[known] == ids[known]).mean() > 0.95
    assert (found[~known] == UNKNOWN).mean() > 0.95
    assert claim.score(truth) == pytest.approx(known.mean(), abs=0.05)


def test_known_rows_under_another_key_come_nowhere() -> None:
    knowledge, truth = planted(noise=0.0, rows=500, known=10)
    assert RowsAgain().mount(RowsAgain().control(knowledge)).score(truth) == 0.0
    assert "known" in str(RowsAgain().lacks(replace(knowledge, known=None)))
    known = replace(knowledge.known, token_ids=None)
    assert "positions" in str(RowsAgain().lacks(replace(knowledge, known=known)))
