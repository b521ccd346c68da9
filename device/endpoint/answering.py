"""How the endpoint answers: what was chosen for all answers, beside what each request asks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from triparty.common.deviceinfo import TOKENS
from triparty.common.errors import SettingsError
from triparty.device.inference.draft_model import DraftModel
from triparty.device.inference.opened import OpenedModel
from triparty.device.inference.options import MAX_SPECULATE, GenerationOptions

KEPT_CHATS = 4


@dataclass(frozen=True)
class Answering:
    """What is chosen for all answers.

    Attributes:
        speculate: most tokens to guess ahead in a step.
        draft: what guesses for models with its tokens; for others, and with None, the text is
            looked up in itself.
        deadline_s: seconds in which a whole answer has to be there; None sets no end.
        kept_chats: sessions of chats that stay open between two requests.
    """

    speculate: int = 0
    draft: DraftModel | None = None
    deadline_s: float | None = None
    kept_chats: int = KEPT_CHATS

    def __post_init__(self) -> None:
        """Refuses what no answer could have."""
        GenerationOptions(speculate=self.speculate, deadline_s=self.deadline_s)
        if self.draft is not None and not self.speculate:
            raise SettingsError(
                f"a draft needs speculate: say how many tokens, 1 to {MAX_SPECULATE}"
            )
        if self.kept_chats < 0:
            raise SettingsError(f"keep-chats must be 0 or more, got {self.kept_chats}")

    def options(self, opened: OpenedModel, asked: GenerationOptions) -> GenerationOptions:
        """What a request asks of a model, and what was chosen for all, where the model can."""
        asked = replace(asked, deadline_s=self.deadline_s)
        if opened.bundle.info.interface == TOKENS or not self.speculate:
            return asked  # an answer in words is one round trip as it is
        fits = self.draft is not None and self.draft.fits(opened.tokenizer)
        return replace(asked, speculate=self.speculate, draft=self.draft if fits else None)
