"""What is wanted of an answer: one record for Python, the command line and the local endpoint.

The names are those of `transformers` and vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, TypedDict

from triparty.common.errors import SettingsError
from triparty.common.sampling import SamplingOptions
from triparty.device.inference.drafts import Draft

MAX_TOKENS = 128
MAX_LOGPROBS = 20
MAX_STOPS = 16
MAX_SPECULATE = 63


class OptionChanges(TypedDict, total=False):
    """The members of `GenerationOptions`, as keyword arguments."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int | None
    max_tokens: int | None
    stop: str | Sequence[str]
    logprobs: int | None
    ignore_eos: bool
    deadline_s: float | None
    speculate: int
    draft: Draft | None


@dataclass(frozen=True)
class GenerationOptions(SamplingOptions):
    """How tokens are chosen, how many, and where an answer ends.

    Attributes:
        max_tokens: most tokens to generate; None: as many as the model has positions for.
        stop: texts before which the answer ends; they are no part of it. One may be given as
            it is.
        logprobs: how many of the likeliest tokens are told beside the chosen one, each with
            the model's own log-probability (before any option changes it); None tells none.
        ignore_eos: go on after an end token, for measurements.
        deadline_s: seconds from the first request until the whole answer has to be there, else
            `DeadlineError`; to end the session on the cloud may take up to 2 more. None waits
            as long as something comes.
        speculate: most tokens to guess ahead in a step, for models of the interface
            `embeddings`; the answer is the same as with 0, in fewer round trips.
        draft: what guesses them; None looks the text up in itself.
    """

    max_tokens: int | None = MAX_TOKENS
    stop: str | Sequence[str] = ()
    logprobs: int | None = None
    ignore_eos: bool = False
    deadline_s: float | None = None
    speculate: int = 0
    draft: Draft | None = None

    def __post_init__(self) -> None:
        """Refuses values without a meaning."""
        super().__post_init__()
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stops)
        if len(stops) > MAX_STOPS or not all(stops):
            raise SettingsError(
                f"stop takes up to {MAX_STOPS} texts, none of them empty, got {list(stops)!r}"
            )
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError(f"max-tokens must be at least 1, got {self.max_tokens}")
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise SettingsError(f"logprobs must be 0 to {MAX_LOGPROBS}, got {self.logprobs}")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise SettingsError(f"deadline must be above 0 seconds, got {self.deadline_s}")
        if not 0 <= self.speculate <= MAX_SPECULATE:
            raise SettingsError(f"speculate must be 0 to {MAX_SPECULATE}, got {self.speculate}")
        if self.draft is not None and not self.speculate:
            raise SettingsError("a draft needs speculate: say how many tokens it may guess")

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which the answer ends."""
        return tuple(self.stop)

    @classmethod
    def of(cls, options: SamplingOptions | None, changes: OptionChanges) -> Self:
        """Options with some members changed.

        Args:
            options: what to begin with; of `SamplingOptions` the other members are the
                defaults. None: all are.
            changes: members by name.
        """
        base = cls(**vars(options)) if options is not None else cls()
        return replace(base, **changes)
