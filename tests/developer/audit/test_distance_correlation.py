"""Distance correlation: its definition, and why a low one says nothing of security."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from triparty.developer.audit.distance_correlation import of_coordinates, of_points

Values = NDArray[np.float64]


def direct(first: Values, second: Values) -> tuple[float, float]:
    """Both estimates from the printed formulas, matrix by matrix."""

    def distances(points: Values) -> Values:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    def centred(a: Values) -> Values:
        return a - a.mean(axis=0) - a.mean(axis=1)[:, None] + a.mean()

    def corrected(a: Values) -> Values:
        n = len(a)
        made = (
            a - a.sum(0) / (n - 2) - a.sum(1)[:, None] / (n - 2) + a.sum() / (n - 1) / (n - 2)
        )
        np.fill_diagonal(made, 0.0)
        return made

    def ratio(a: Values, b: Values) -> float:
        return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

    a, b = distances(first), distances(second)
    return np.sqrt(ratio(centred(a), centred(b))), ratio(corrected(a), corrected(b))


@pytest.mark.parametrize("count", [5, 64, 1100])
@pytest.mark.parametrize("widths", [(1, 1), (3, 2), (4, 9)])
def test_it_is_what_its_definition_says(count: int, widths: tuple[int, int]) -> None:
    rng = np.random.default_rng(count)
    first = rng.normal(size=(count, widths[0]))
    second = np.square(first[:, :1]) + rng.normal(size=(count, widths[1]))
    plain, corrected = direct(first, second)
    assert of_points(first, second) == pytest.approx(plain, abs=1e-7)
    assert of_points(first, second, corrected=True) == pytest.approx(corrected, abs=1e-7)


def test_independent_points_and_linear_ones() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 2))
    assert of_points(points, rng.normal(size=(3000, 2))) < 0.06
    assert abs(of_points(points, rng.normal(size=(3000, 2)), corrected=True)) < 0.01
    assert of_points(points, 3 - 2 * points) == pytest.approx(1.0)
    assert of_points(points[:, :1], np.square(points[:, :1])) > 0.3  # no linear correlation
    assert of_points(points, np.ones((3000, 1))) == 0.0


def test_samples_that_do_not_fit_are_refused() -> None:
    points = np.zeros((3, 1))
    with pytest.raises(ValueError, match="got 3 and 2 points"):
        of_points(points, points[:2])
    with pytest.raises(ValueError, match="at least 4"):
        of_points(points, points, corrected=True)


@pytest.mark.parametrize(
    ("width", "reported"),
    [(128, 0.14), (2048, 0.035), pytest.param(8192, 0.017, marks=pytest.mark.slow)],
)
def test_coordinates_that_trade_places_have_the_correlation_of_the_thesis(
    width: int, reported: float
) -> None:
    """Which is that of any independent pairs: without bias nothing is left of it."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, width))
    keyed = [row[rng.permutation(width)] for row in rows]
    strangers = rng.normal(size=(6, width))
    found = of_coordinates(rows, np.array(keyed))
    assert found == pytest.approx(reported, rel=0.35)
    assert found == pytest.approx(of_coordinates(rows, strangers), rel=0.35)
    assert abs(of_coordinates(rows, np.array(keyed), corrected=True)) < 1 / width**0.5


def test_rows_are_as_they_were_under_every_key() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(100, 64))
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    assert of_points(rows, rows[:, rng.permutation(64)]) == pytest.approx(1.0)
    assert of_points(rows, rows @ turn) == pytest.approx(1.0)
    assert of_points(rows, rows @ rng.normal(size=(64, 1))) < 0.6
