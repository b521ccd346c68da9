"""Token buckets: how fast, how much at once, and who pays for it."""

from __future__ import annotations

import pytest

from triparty.cloud.accounts import Principal
from triparty.cloud.rates import BURST_S, RequestRates
from triparty.common.errors import LimitError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def a(name: str, developer: str = "acme") -> Principal:
    return Principal(name, "device", developer, frozenset())


def taken(rates: RequestRates, principal: Principal, most: int = 1000) -> int:
    for count in range(most):
        try:
            rates.take(principal)
        except LimitError:
            return count
    return most


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_then_a_steady_rate(clock: Clock) -> None:
    rates = RequestRates(per_principal=2, per_developer=1000, clock_s=clock)
    assert taken(rates, a("x")) == 2 * BURST_S
    with pytest.raises(LimitError) as error:
        rates.take(a("x"))
    assert error.value.extra == {"retry_after_s": 1}
    clock.now += 1
    assert taken(rates, a("x")) == 2
    clock.now += 10_000
    assert taken(rates, a("x")) == 2 * BURST_S  # never more than the bucket holds
    assert taken(rates, a("y")) == 2 * BURST_S


def test_a_developer_pays_for_its_devices_alone(clock: Clock) -> None:
    rates = RequestRates(per_principal=1000, per_developer=1, clock_s=clock)
    assert sum(taken(rates, a(f"device {n}")) for n in range(50)) == BURST_S
    assert taken(rates, a("acme")) == 0  # the developer itself is in the same bucket
    assert taken(rates, a("z", developer="other")) == BURST_S


def test_a_refused_request_takes_nothing(clock: Clock) -> None:
    rates = RequestRates(per_principal=0.1, per_developer=0.2, clock_s=clock)
    assert taken(rates, a("x")) == 1
    for _ in range(5):
        with pytest.raises(LimitError) as error:
            rates.take(a("x"))
    assert error.value.extra == {"retry_after_s": 10}
    assert taken(rates, a("y")) == 1
