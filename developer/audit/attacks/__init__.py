"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.alignment import Alignment
from triparty.developer.audit.attacks.linking import Linking
from triparty.developer.audit.attacks.rotation import Rotation
from triparty.developer.audit.attacks.sorted_rows import SortedRows

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    Alignment(),
    Rotation(),
    Linking(),
)

__all__ = [
    "ATTACKS",
    "Alignment",
    "Linking",
    "Rotation",
    "SortedRows",
]
