"""Every policy by its name, and how its leftover budget is spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from triparty.common.errors import SettingsError
from triparty.device.gate.baselines import (
    Keyframes,
    RandomOrder,
    ReferencesOnly,
    RoundRobin,
    SizeThreshold,
    Temporal,
)
from triparty.device.gate.bounded import Bounded
from triparty.device.gate.freshness import Freshness, Price
from triparty.device.gate.learned import Learned
from triparty.device.gate.optimizer import Leftover
from triparty.device.gate.oracle import Oracle, Truth
from triparty.device.gate.policy import Policy
from triparty.device.gate.predictor import Predictor


@dataclass(frozen=True)
class Wanted:
    """What a policy may be made of.

    Attributes:
        predictor: a trained network, for those that use one.
        truth: for the oracle alone.
        seed: of random draws.
    """

    predictor: Predictor | None = None
    truth: Truth | None = None
    seed: int = 0


@dataclass(frozen=True)
class Named:
    """A policy of the registry.

    Attributes:
        name: as settings and reports call it.
        make: from what is at hand.
        leftover: how `optimizer.choose` treats what does not fit.
        learns: whether it needs a trained network.
        says: what it does, in a line.
    """

    name: str
    make: Callable[[Wanted], Policy]
    leftover: Leftover
    learns: bool
    says: str


def _learned(wanted: Wanted) -> Policy:
    if wanted.predictor is None:
        raise SettingsError("a trained network is needed: run 'triparty device gate fit' first")
    return Learned(wanted.predictor)


def _oracle(wanted: Wanted) -> Policy:
    if wanted.truth is None:
        raise SettingsError(
            "the oracle needs labels: it runs in replays of labelled traces only"
        )
    return Oracle(wanted.truth)


_ALL: Final = (
    Named("keyframes", lambda _: Keyframes(), "scan", False, "entries alone"),
    Named(
        "every_other_keyframe", lambda _: Keyframes(every=2), "scan", False, "every 2nd entry"
    ),
    Named(
        "non_reference_skip", lambda _: ReferencesOnly(), "scan", False, "all that others need"
    ),
    Named("round_robin", lambda _: RoundRobin(), "scan", False, "whoever waited longest"),
    Named("random", lambda w: RandomOrder(seed=w.seed), "scan", False, "a fair draw"),
    Named(
        "size_threshold", lambda _: SizeThreshold(), "scan", False, "unusually large packets"
    ),
    Named("temporal", lambda _: Temporal(), "paper", False, "the printed estimator alone"),
    Named(
        "temporal_discounted",
        lambda _: Temporal(estimator="discounted"),
        "scan",
        False,
        "the discounted estimator alone",
    ),
    Named("contextual", _learned, "paper", True, "the published network without feedback"),
    Named("paper", _learned, "paper", True, "the published design"),
    Named(
        "feedback_only", lambda _: Freshness(price=Price()), "scan", False, "ours, no network"
    ),
    Named(
        "ours",
        lambda w: Freshness(w.predictor, price=Price()),
        "scan",
        False,
        "most seconds of right answers",
    ),
    Named("oracle", _oracle, "scan", False, "told the truth: a bound"),
)
POLICIES: Final = {named.name: named for named in _ALL}


def make(
    name: str,
    *,
    predictor: Predictor | None = None,
    truth: Truth | None = None,
    seed: int = 0,
    max_staleness: float | None = None,
) -> Policy:
    """A policy by its name.

    Args:
        name: one of `POLICIES`.
        predictor: a trained network; `ours` works without, `contextual` and `paper` do not.
        truth: for the oracle.
        seed: of random draws.
        max_staleness: seconds between two looks at a stream; None: no bound.

    Raises:
        SettingsError: no such policy, or what it needs is not given.
    """
    if name not in POLICIES:
        raise SettingsError(f"policy '{name}': expected one of {', '.join(POLICIES)}")
    if max_staleness is not None and not max_staleness > 0:
        raise SettingsError(f"max_staleness {max_staleness}: expected seconds above 0")
    policy = POLICIES[name].make(Wanted(predictor, truth, seed))
    return policy if max_staleness is None else Bounded(policy, max_staleness)
