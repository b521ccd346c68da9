"""The key of a protected model opened again: `OUT/secrets` beside the original checkpoint.

With both, every transform and every tensor follows as it did when the model was protected, so
that the model can be checked, and what was trained for the original can follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triparty.common.errors import StateError
from triparty.developer.protect.choices import Norms
from triparty.developer.protect.secret import SECRETS_FOLDER, Secret
from triparty.developer.protect.survey import Survey, survey
from triparty.developer.protect.weights import Weights


@dataclass(frozen=True)
class ModelKey:
    """The key of one protected model.

    Attributes:
        secret: what `OUT/secrets` says.
        decided: the source and its plan, with the choices of that time.
        weights: the source's tensors under the key.
    """

    secret: Secret
    decided: Survey
    weights: Weights

    @classmethod
    def open(cls, out: Path, source: str | None = None) -> ModelKey:
        """Opens `out/secrets` and the source.

        Args:
            out: what `protect` wrote.
            source: the original, if it lies elsewhere now; None: where it lay then.

        Raises:
            StateError: `out/secrets` is gone or damaged, or the source is of another family.
            CheckpointError: the source is gone, or does not fit its plan.
        """
        secret = Secret.read(out / SECRETS_FOLDER)
        decided = survey(source or secret.source, secret.choices)
        if decided.plan.family != secret.family:
            raise StateError(
                f"{out} was made from a {secret.family} model, {source or secret.source} is a "
                f"{decided.plan.family} model"
            )
        fold = secret.choices.norms is Norms.FOLD
        shards = decided.checkpoint.shards
        weights = Weights(decided.plan, shards, secret.keys, fold=fold)
        return cls(secret, decided, weights)
