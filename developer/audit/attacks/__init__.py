"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.alignment import Alignment
from triparty.developer.audit.attacks.linking import Linking
from triparty.developer.audit.attacks.private_weights import PrivateWeights
from triparty.developer.audit.attacks.products import Products
from triparty.developer.audit.attacks.public_head import PublicHead
from triparty.developer.audit.attacks.rotation import Rotation
from triparty.developer.audit.attacks.sorted_rows import SortedRows

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    Alignment(),
    Rotation(),
    PublicHead(),
    PrivateWeights(),
    Products(),
    Linking(),
)

__all__ = [
    "ATTACKS",
    "Alignment",
    "Linking",
    "PrivateWeights",
    "Products",
    "PublicHead",
    "Rotation",
    "SortedRows",
]
