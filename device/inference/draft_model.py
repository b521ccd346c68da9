"""A small model of this machine as a draft (transformers; the extra `draft`).

It reads text that the cloud does not get, so it is loaded from a local folder of safetensors
and runs no code of that folder.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import Tokenizer

from triparty.common.errors import SettingsError

_TRANSFORMERS: Final = "a draft model needs transformers: pip install 'triparty[draft]'"


class DraftModel:
    """Guesses what a small model finds likeliest; keeps its cache from guess to guess.

    Args:
        model: a causal language model of transformers.
        tokens: its vocabulary: ids by text; None where nobody asks whether it fits.
    """

    def __init__(self, model: Any, tokens: Mapping[str, int] | None = None) -> None:
        """Has read nothing yet."""
        self._model, self._tokens = model, tokens
        self._positions: int = model.config.get_text_config().max_position_embeddings
        self._lock = threading.Lock()
        self._cache: Any = None
        self._read: list[int] = []

    @classmethod
    def load(cls, folder: Path, *, tokenizer: Tokenizer) -> Self:
        """The model of a checkpoint's folder.

        Args:
            folder: with `config.json`, safetensors and `tokenizer.json`.
            tokenizer: of the model whose answers are guessed; the draft's must be equal.

        Raises:
            SettingsError: transformers is not installed, the folder holds no such model, or
                its tokens are others.
        """
        draft = cls.open(folder)
        if not draft.fits(tokenizer):
            raise SettingsError(
                f"the draft model in {folder} has other tokens than the model: choose one with "
                "the same tokenizer"
            )
        return draft

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The model of a checkpoint's folder, whatever its tokens are; see `load`."""
        try:
            import torch
            import transformers
        except ImportError as error:
            raise SettingsError(_TRANSFORMERS) from error
        try:
            own = Tokenizer.from_file(str(folder / "tokenizer.json"))
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            )
        except Exception as error:  # tokenizers and transformers raise no narrower one
            raise SettingsError(f"{folder} holds no draft model: {error}") from error
        return cls(model, own.get_vocab())

    def fits(self, tokenizer: Tokenizer) -> bool:
        """Whether its tokens are those of a model."""
        return self._tokens == tokenizer.get_vocab()

    def propose(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest tokens, one after another; none beyond the draft's own positions."""
        import torch

        count = min(count, self._positions - len(ids))
        if count < 1:
            return []
        with self._lock, torch.inference_mode():
            pending = self._unread(list(ids))
            guessed: list[int] = []
            while True:
                guessed.append(self._likeliest(pending))
                if len(guessed) == count:
                    return guessed
                pending = guessed[-1:]

    def _unread(self, ids: list[int]) -> list[int]:
        """What the cache lacks, at least the last one; forgets what it has and should not."""
        from transformers import DynamicCache

        same = takewhile(lambda pair: pair[0] == pair[1], zip(self._read, ids, strict=False))
        shared = min(len(list(same)), len(ids) - 1)
        surplus = len(self._read) - shared
        if not shared:
            self._cache = DynamicCache()
        elif surplus:
            self._cache.crop(-surplus)
        self._read = ids[:shared]
        return ids[shared:]

    def _likeliest(self, ids: list[int]) -> int:
        import torch

        given = torch.tensor([ids], device=self._model.device)
        output = self._model(
            given, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        self._read += ids
        return int(output.logits[0, -1].argmax())
