"""What noise guarantees: against closed forms, an accountant of others, and an upper bound."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra federation")

from made_sites import TASK, LinearSite, honest, new_federation, run_in_process
from typer.testing import CliRunner

from triparty.common.errors import SettingsError
from triparty.developer.cli_federate import app
from triparty.developer.federation.accounting import gaussian_epsilon, spent
from triparty.developer.federation.plan import Plan, Privacy

PLAN = Plan(TASK, rounds=3, wait_s=0.0, privacy=Privacy(4.0, 1.0))


@pytest.mark.parametrize(
    ("noise", "releases", "delta", "known"),
    [
        (1.0, 1, 1e-5, 4.37718),
        (1.0, 10, 1e-5, 17.85659),
        (2.0, 10, 1e-5, 7.51128),
        (4.0, 10, 1e-5, 3.34141),
        (8.0, 10, 1e-5, 1.53468),
        (8.0, 100, 1e-6, 6.31206),
        (50.0, 10, 1e-5, 0.20681),
        (0.5, 3, 1e-5, 20.12502),
    ],
)
def test_it_is_what_privacy_loss_distributions_come_to(
    noise: float, releases: int, delta: float, known: float
) -> None:
    """Google's dp-accounting 0.6, `PLDAccountant` of `GaussianDpEvent`, which rounds up."""
    found = gaussian_epsilon(noise, releases, delta)
    assert found == pytest.approx(known, rel=2e-4)
    assert found <= known + 1e-5


def test_a_delta_that_is_known_in_closed_form() -> None:
    """At mu = 1 and epsilon = 1: Phi(-1/2) - e Phi(-3/2)."""

    def phi(value: float) -> float:
        return math.erfc(-value / math.sqrt(2)) / 2

    delta = phi(-0.5) - math.e * phi(-1.5)
    assert gaussian_epsilon(1.0, 1, delta) == pytest.approx(1.0, abs=1e-9)
    assert gaussian_epsilon(3.0, 9, delta) == pytest.approx(1.0, abs=1e-9)
    assert gaussian_epsilon(1e6, 1, 0.1) == 0.0


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("releases", [1, 7, 1000])
def test_it_is_below_renyi_and_grows_with_releases(noise: float, releases: int) -> None:
    """Mironov 2017: of any order a > 1, a t / (2 s^2) + log(1 / delta) / (a - 1)."""
    delta = 1e-6
    orders = [1 + 10 ** (power / 20) for power in range(-80, 80)]
    renyi = min(a * releases / (2 * noise**2) + math.log(1 / delta) / (a - 1) for a in orders)
    found = gaussian_epsilon(noise, releases, delta)
    assert 0 < found < renyi
    assert found < gaussian_epsilon(noise, releases + 1, delta)
    assert found < gaussian_epsilon(noise, releases, delta / 10)
    assert found > gaussian_epsilon(1.1 * noise, releases, delta)


def test_a_site_with_other_rows_moves_the_sum_by_two_norms() -> None:
    told = spent(PLAN, 5)
    assert told is not None
    assert told.epsilon == gaussian_epsilon(2.0, 5, 1e-5)
    assert spent(replace(PLAN, privacy=None), 5) is None
    nothing = spent(PLAN, 0)
    assert nothing is not None
    assert nothing.epsilon == 0
    with pytest.raises(SettingsError, match="delta"):
        spent(PLAN, 5, delta=0.0)


def test_status_tells_what_was_spent(tmp_path: Path) -> None:
    sites = {name: honest(LinearSite.draw(seed)) for seed, name in enumerate("abc")}
    federation = new_federation(tmp_path, PLAN)
    run_in_process(federation, sites)
    arguments = ["status", str(federation.folder), "--json", "--delta", "1e-4"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    told = json.loads(done.stdout.splitlines()[-1])["privacy"]
    assert told == {
        "epsilon": gaussian_epsilon(2.0, 3, 1e-4),
        "delta": 1e-4,
        "rounds": 3,
    }
