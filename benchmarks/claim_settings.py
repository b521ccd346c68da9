"""The models that the documents have figures of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import real_model, trained_encoder


@dataclass(frozen=True)
class Setting:
    """A model under attack.

    Attributes:
        model: by name.
        what: what it is, in a few words.
        schemes: it is protected with; the first alone is attacked where they are one.
    """

    model: str
    what: str
    schemes: tuple[str, ...]

    def scheme_of(self, scheme: str) -> str:
        """What figures call a scheme: `either` where both key the model alike."""
        return scheme if len(self.schemes) > 1 else "either"

    @property
    def source(self) -> Path:
        """The folder of the original.

        Raises:
            BenchError: it is absent.
        """
        return trained_encoder() if self.model == "MiniLM" else real_model(self.model)


SETTINGS = (
    Setting("stories260K", "LLaMA, 0.26 M weights", ("permutation", "orthogonal")),
    Setting("gpt2-capp", "GPT-2", ("permutation", "orthogonal")),
    Setting("MiniLM", "BERT, 22.7 M weights", ("permutation",)),
)
