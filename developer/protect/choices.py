"""What the developer chooses for a protected model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from triparty.common.errors import SettingsError
from triparty.developer.protect.spaces import Scheme

E = TypeVar("E", bound=StrEnum)


class Interface(StrEnum):
    """What travels between device and cloud: keyed rows, or keyed token ids."""

    EMBEDDINGS = "embeddings"
    TOKENS = "tokens"


class Norms(StrEnum):
    """What becomes of norm weights: folded into their readers, or kept and permuted."""

    FOLD = "fold"
    KEEP = "keep"


class Head(StrEnum):
    """Who makes logits of the last hidden state."""

    CLOUD = "cloud"
    DEVICE = "device"


@dataclass(frozen=True)
class Choices:
    """What the developer chose.

    Attributes:
        scheme: how spaces are keyed.
        interface: what travels between device and cloud.
        epoch: generation of the key, from 1.
        norms: what becomes of norm weights, where the family allows folding. Kept ones move
            bit for bit, and show an attacker who knows the base model how the residual is
            permuted.
        expand: D of an isometric expansion of the residual, or None.
        head_scales: whether each logit has a secret scale that only devices can undo.
        head: who has the head of a decoder. Where devices have it, the cloud has no logits.
    """

    scheme: Scheme = Scheme.PERMUTATION
    interface: Interface = Interface.EMBEDDINGS
    epoch: int = 1
    norms: Norms = Norms.FOLD
    expand: int | None = None
    head_scales: bool = False
    head: Head = Head.CLOUD

    def __post_init__(self) -> None:
        """Refuses what does not exist or go together."""
        if self.epoch < 1:
            raise SettingsError(f"epochs count from 1, got {self.epoch}")
        if self.scheme is Scheme.ORTHOGONAL and self.norms is Norms.KEEP:
            raise SettingsError(
                "orthogonal keys mix the coordinates that norm weights scale: they need "
                "norms 'fold'"
            )
        if self.expand is not None and self.scheme is not Scheme.ORTHOGONAL:
            raise SettingsError("an expansion needs the scheme 'orthogonal'")
        if self.head_scales and self.interface is Interface.TOKENS:
            raise SettingsError(
                "with the interface 'tokens' the cloud picks the tokens, so it must be able "
                "to compare their logits: head scales need the interface 'embeddings'"
            )
        if self.head is Head.DEVICE:
            self._check_device_head()

    def _check_device_head(self) -> None:
        if self.interface is Interface.TOKENS:
            raise SettingsError(
                "with the interface 'tokens' the cloud picks the tokens, so it must have the "
                "head: a head on the device needs the interface 'embeddings'"
            )
        if self.head_scales:
            raise SettingsError(
                "with the head on the device the cloud has no logits to scale: choose either a "
                "head on the device or head scales"
            )

    @classmethod
    def of(
        cls,
        *,
        scheme: str = Scheme.PERMUTATION,
        interface: str = Interface.EMBEDDINGS,
        norms: str = Norms.FOLD,
        epoch: int = 1,
        expand: int | None = None,
        head_scales: bool = False,
        head: str = Head.CLOUD,
    ) -> Choices:
        """Choices from words.

        Raises:
            SettingsError: a word that does not exist.
        """
        return cls(
            scheme=_member(Scheme, "scheme", scheme),
            interface=_member(Interface, "interface", interface),
            norms=_member(Norms, "choice of norms", norms),
            epoch=epoch,
            expand=expand,
            head_scales=head_scales,
            head=_member(Head, "place of the head", head),
        )


def _member(kind: type[E], what: str, word: str) -> E:
    if word not in set(kind):
        raise SettingsError(f"there is no {what} {word!r}; there is: {_words(kind)}")
    return kind(word)


def _words(kind: Iterable[StrEnum]) -> str:
    return ", ".join(kind)
