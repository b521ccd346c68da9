"""Every policy by its name, and how its leftover budget is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        predictor: of the kind that the policy names, for those that use one.
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
        says: what it does, in a line.
        network: the one kind of network (`Network.kind`) that it runs; None: it runs none.
        instead: what does the same without a network; None: nothing does.
    """

    name: str
    make: Callable[[Wanted], Policy]
    leftover: Leftover
    says: str
    network: str | None = None
    instead: str | None = None

    @property
    def learns(self) -> bool:
        """Whether it cannot do without a trained network."""
        return self.network is not None and self.instead is None


def _learned(wanted: Wanted) -> Policy:
    if wanted.predictor is None:
        raise SettingsError("a policy that ranks by a network was made without one")
    return Learned(wanted.predictor)


def _oracle(wanted: Wanted) -> Policy:
    if wanted.truth is None:
        raise SettingsError(
            "the oracle needs labels: it runs in replays of labelled traces only"
        )
    return Oracle(wanted.truth)


_ALL: Final = (
    Named("keyframes", lambda _: Keyframes(), "scan", "entries alone"),
    Named("every_other_keyframe", lambda _: Keyframes(every=2), "scan", "every 2nd entry"),
    Named("non_reference_skip", lambda _: ReferencesOnly(), "scan", "all that others need"),
    Named("round_robin", lambda _: RoundRobin(), "scan", "whoever waited longest"),
    Named("random", lambda w: RandomOrder(seed=w.seed), "scan", "a fair draw"),
    Named("size_threshold", lambda _: SizeThreshold(), "scan", "unusually large packets"),
    Named("temporal", lambda _: Temporal(), "paper", "the printed estimator alone"),
    Named(
        "temporal_discounted",
        lambda _: Temporal(estimator="discounted"),
        "scan",
        "the discounted estimator alone",
    ),
    Named(
        "contextual",
        _learned,
        "paper",
        "the published network without feedback",
        network="contextual",
    ),
    Named("paper", _learned, "paper", "the published design", network="published"),
    Named("feedback_only", lambda _: Freshness(price=Price()), "scan", "ours, no network"),
    Named(
        "ours",
        lambda w: Freshness(w.predictor, price=Price()),
        "scan",
        "most seconds of right answers",
        network="extended",
        instead="feedback_only",
    ),
    Named("oracle", _oracle, "scan", "told the truth: a bound"),
)
POLICIES: Final = {named.name: named for named in _ALL}


def matching(name: str, predictors: Sequence[Predictor]) -> Predictor | None:
    """The network that a policy runs, of those at hand; None if it runs none.

    Args:
        name: one of `POLICIES`.
        predictors: of the gates that were given, at most one of a kind.

    Raises:
        SettingsError: no such policy, two gates of one kind, or no gate of the kind that the
            policy names where it needs one, or where others were given.
    """
    if name not in POLICIES:
        raise SettingsError(f"policy '{name}': expected one of {', '.join(POLICIES)}")
    kinds = [predictor.network.kind for predictor in predictors]
    if len(set(kinds)) < len(kinds):
        raise SettingsError(f"gates {', '.join(kinds)}: expected at most one of each network")
    policy = POLICIES[name]
    if policy.network is None or not (policy.learns or predictors):
        return None
    if policy.network in kinds:
        return predictors[kinds.index(policy.network)]
    remedy = f" (or name the policy '{policy.instead}')" if policy.instead else ""
    raise SettingsError(
        f"policy '{name}': expected a gate with the network '{policy.network}', got "
        f"{', '.join(kinds) or 'no gate'}: make one by 'triparty device gate fit TRACES -o "
        f"GATE --network {policy.network}' and name it with --gate of 'gate replay' or "
        f"artifact of [gate]{remedy}"
    )


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
        predictor: a trained network of the kind that the policy names; `ours` works without,
            `contextual` and `paper` do not, all others leave it alone.
        truth: for the oracle.
        seed: of random draws.
        max_staleness: seconds between two looks at a stream; None: no bound.

    Raises:
        SettingsError: no such policy, what it needs is not given, or the network is another.
    """
    mine = matching(name, [] if predictor is None else [predictor])
    if max_staleness is not None and not max_staleness > 0:
        raise SettingsError(f"max_staleness {max_staleness}: expected seconds above 0")
    policy = POLICIES[name].make(Wanted(mine, truth, seed))
    return policy if max_staleness is None else Bounded(policy, max_staleness)
