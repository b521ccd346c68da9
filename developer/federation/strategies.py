"""Which strategy of Flower's aggregates what a plan takes."""

from __future__ import annotations

from typing import Any, Final

from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    FedMedian,
    FedTrimmedAvg,
    Krum,
    Strategy,
)

from triparty.common.federation import ARRAYS, CONFIG, SITE_WEIGHT
from triparty.developer.federation.plan import Plan

_ROUNDING: Final = 1e-9  # a share of n sites is cut down to whole sites


def strategy_of(plan: Plan) -> Strategy:
    """Flower's strategy for a plan; `GuardedStrategy` goes around it."""
    every: dict[str, Any] = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": 1,
        "min_available_nodes": 1,
        "weighted_by_key": SITE_WEIGHT,
        "arrayrecord_key": ARRAYS,
        "configrecord_key": CONFIG,
    }
    if plan.aggregation == "median":
        return FedMedian(**every)
    if plan.aggregation == "trimmed":
        return FedTrimmedAvg(**every, beta=plan.liars / plan.least_sites + _ROUNDING)
    if plan.aggregation == "krum":
        return Krum(**every, num_malicious_nodes=plan.liars)
    if plan.privacy is not None:
        return DifferentialPrivacyServerSideFixedClipping(
            FedAvg(**every),
            noise_multiplier=plan.privacy.noise,
            clipping_norm=plan.privacy.clip,
            # The noise is for a mean over so many: with more answers there is more than enough.
            num_sampled_clients=plan.least_sites,
        )
    return FedAvg(**every)
