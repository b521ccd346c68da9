"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.gram import Gram
from triparty.developer.audit.attacks.norms import Norms
from triparty.developer.audit.attacks.sorted_rows import SortedRows

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    Norms(),
    Gram(),
)

__all__ = ["ATTACKS", "Gram", "Norms", "SortedRows"]
