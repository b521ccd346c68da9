"""How a hosted model that takes token ids ends its answers: a pure value of its files.

A model of the interface `tokens` is one whose folder holds the opaque tokenizer of its
vocabulary (`common/opaque.py`), byte for byte: then its words are ids, and its embedding is
real. All ids are keyed; the cloud knows no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from triparty.common import opaque
from triparty.common.errors import CheckpointError


@dataclass(frozen=True)
class TextRules:
    """What the cloud must know to generate text of a model.

    Attributes:
        end_ids: after which an answer ends.
        suppressed: ids that are never chosen.
        suppressed_first: ids that are not chosen as the first of an answer.
    """

    end_ids: frozenset[int]
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()

    @classmethod
    def of(cls, generation: Mapping[str, Any], *, vocabulary: int) -> Self:
        """Reads a generation configuration, as stock `generate` does.

        Args:
            generation: the content of `generation_config.json`, or of `config.json` where
                there is none.
            vocabulary: V.

        Raises:
            CheckpointError: ids that are none, or rules under which nothing can be said.
        """
        always = _ids(generation, "suppress_tokens", vocabulary)
        first = _ids(generation, "begin_suppress_tokens", vocabulary)
        if len({*always, *first}) == vocabulary:
            raise CheckpointError(
                "the generation configuration suppresses the whole vocabulary"
            )
        ends = frozenset(_ids(generation, "eos_token_id", vocabulary))
        return cls(ends, always, tuple(sorted({*always, *first})))


def is_opaque_tokenizer(data: bytes, *, vocabulary: int) -> bool:
    """Whether a `tokenizer.json` is the opaque one of a vocabulary of V ids."""
    if not 0 < vocabulary <= opaque.MAX_VOCABULARY:
        return False
    return data == opaque.tokenizer_files(vocabulary)[opaque.TOKENIZER_FILE]


def _ids(generation: Mapping[str, Any], name: str, vocabulary: int) -> tuple[int, ...]:
    value = generation.get(name)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(n) is int for n in ids):
        raise CheckpointError(f"the generation configuration's {name!r} must be token ids")
    # Some checkpoints name -1, or ids that their table has no row for.
    return tuple(sorted({n for n in ids if 0 <= n < vocabulary}))
