"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.norms import Norms
from triparty.developer.audit.attacks.sorted_rows import SortedRows

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    Norms(),
)

__all__ = ["ATTACKS", "Norms", "SortedRows"]
