"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.collusion import Collusion, CollusionFunction
from triparty.developer.audit.attacks.frequency import Frequency
from triparty.developer.audit.attacks.gram import Gram
from triparty.developer.audit.attacks.known_columns import KnownColumns
from triparty.developer.audit.attacks.norms import Norms
from triparty.developer.audit.attacks.procrustes import Procrustes, ProcrustesTable
from triparty.developer.audit.attacks.sorted_rows import SortedRows
from triparty.developer.audit.attacks.traffic_shape import TrafficShape

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    Norms(),
    Gram(),
    KnownColumns(),
    Procrustes(),
    ProcrustesTable(),
    Collusion(),
    CollusionFunction(),
    TrafficShape(),
    Frequency(),
)

__all__ = [
    "ATTACKS",
    "Collusion",
    "CollusionFunction",
    "Frequency",
    "Gram",
    "KnownColumns",
    "Norms",
    "Procrustes",
    "ProcrustesTable",
    "SortedRows",
    "TrafficShape",
]
