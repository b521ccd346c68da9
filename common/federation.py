"""What developer and site say to each other when they train links together.

A developer's **call** is a small document that travels outside Flower (mail, a share): where
its SuperLink is, by which certificate it is known, and whose signature an app must have before
a site runs it. A **task** is what a site is asked to do in a round, beside the weights.

What a site answers is weights and three numbers (`EXAMPLES`, `LOSS`, `SITE_WEIGHT`): never an
output, an input or a label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from triparty.common.documents import Members, check_name, read_document, write_document
from triparty.common.errors import FederationError

Weights = dict[str, NDArray[np.float32]]
"""Parameters of links by name."""

ARRAYS: Final = "arrays"
CONFIG: Final = "config"
METRICS: Final = "metrics"
EXAMPLES: Final = "examples"
LOSS: Final = "loss"
SITE_WEIGHT: Final = "weight"
TRUST_ID: Final = "triparty"
CALL_DOCUMENT: Final = "triparty.federation-call"
APP: Final = "@triparty/links"

_Value = TypeVar("_Value", str, int, float)
_ADDRESS = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}:[0-9]{1,5}")
_MOST_EPOCHS = 10_000
_LONGEST_SPEC = 1 << 20
_FIXED = "fixed/"


@dataclass(frozen=True)
class Task:
    """What every site does in a round, on its own recorded outputs.

    Attributes:
        spec: of the links, as text; what it means is the learner's business.
        epochs: passes over the site's data.
        rate: learning rate.
        batch: samples of a step; 0 for one step on all of them.
        optimizer: `sgd` or `adam`, begun anew in each round.
        seed: of the order of samples.
        fixed: weights that nobody trains, by name; vectors.
    """

    spec: str
    epochs: int = 5
    rate: float = 0.01
    batch: int = 32
    optimizer: str = "adam"
    seed: int = 0
    fixed: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what no site should be asked.

        Raises:
            FederationError: a number out of range, or a specification that is too long.
        """
        if not 1 <= self.epochs <= _MOST_EPOCHS:
            raise FederationError(f"epochs: expected 1 to {_MOST_EPOCHS}, got {self.epochs}")
        if not (math.isfinite(self.rate) and 0 < self.rate <= 100):
            raise FederationError(f"rate: expected more than 0, at most 100, got {self.rate}")
        if not 0 <= self.batch <= 1 << 20:
            raise FederationError(f"batch: expected 0 to {1 << 20}, got {self.batch}")
        if not 0 <= self.seed < 1 << 31:
            raise FederationError(f"seed: expected 0 to {(1 << 31) - 1}, got {self.seed}")
        if self.optimizer not in ("sgd", "adam"):
            raise FederationError(
                f"optimizer: expected sgd or adam, got {self.optimizer!r:.40}"
            )
        if not all(math.isfinite(x) for values in self.fixed.values() for x in values):
            raise FederationError("fixed weights must be finite numbers")
        if len(self.spec) > _LONGEST_SPEC:
            raise FederationError(f"the specification has more than {_LONGEST_SPEC} characters")

    def config(self) -> dict[str, str | int | float | list[float]]:
        """As Flower carries it."""
        return {
            "spec": self.spec,
            "epochs": self.epochs,
            "rate": float(self.rate),
            "batch": self.batch,
            "optimizer": self.optimizer,
            "seed": self.seed,
            **{_FIXED + name: [float(x) for x in v] for name, v in self.fixed.items()},
        }

    @classmethod
    def of_config(cls, config: Mapping[str, object]) -> Self:
        """What came over the wire, checked.

        Raises:
            FederationError: a member is missing or is of another type.
        """
        return cls(
            spec=_member(config, "spec", str),
            epochs=_member(config, "epochs", int),
            rate=_member(config, "rate", float),
            batch=_member(config, "batch", int),
            optimizer=_member(config, "optimizer", str),
            seed=_member(config, "seed", int),
            fixed={
                name.removeprefix(_FIXED): _numbers(name, value)
                for name, value in config.items()
                if name.startswith(_FIXED)
            },
        )


@dataclass(frozen=True)
class Call:
    """What a site needs to know of a developer's federation; public, but not to be swapped.

    Attributes:
        name: of the federation.
        superlink: host:port.
        certificate: of its authority, PEM.
        signer: Ed25519 public key in OpenSSH form; apps without its signature are not run.
    """

    name: str
    superlink: str
    certificate: str
    signer: str

    def to_bytes(self) -> bytes:
        """The document."""
        members = {
            "name": self.name,
            "superlink": self.superlink,
            "certificate": self.certificate,
            "signer": self.signer,
        }
        return write_document(CALL_DOCUMENT, members)

    @classmethod
    def from_bytes(cls, payload: bytes) -> Self:
        """Reads the document.

        Raises:
            ManifestError: not such a document.
            FederationError: an address or a key that cannot be one.
        """
        names = ("name", "superlink", "certificate", "signer")
        members: Members = read_document(payload, CALL_DOCUMENT, names)
        superlink, signer = members.text("superlink"), members.text("signer")
        certificate = members.text("certificate")
        if not _ADDRESS.fullmatch(superlink):
            raise FederationError(f"superlink: expected host:port, got {superlink!r:.80}")
        if not signer.startswith("ssh-ed25519 ") or "\n" in signer:
            raise FederationError("signer: expected one 'ssh-ed25519 ...' key")
        if "BEGIN CERTIFICATE" not in certificate:
            raise FederationError("certificate: expected a PEM certificate")
        return cls(check_name(members.text("name")), superlink, certificate, signer)


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(type(one) is float for one in value):
        raise FederationError(f"{name:.80}: expected a list of numbers")
    return tuple(value)


def _member(config: Mapping[str, object], name: str, kind: type[_Value]) -> _Value:
    value = config.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FederationError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    return value
