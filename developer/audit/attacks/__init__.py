"""Every attack of the audit, one a module.

`ATTACKS` are those that `audit` mounts. `noisy_rows` and `rows_again` are made for rows that
devices have shielded; `compare` mounts them as well.
"""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.alignment import Alignment
from triparty.developer.audit.attacks.attention import AttentionMaps
from triparty.developer.audit.attacks.collusion import Collusion, CollusionFunction
from triparty.developer.audit.attacks.echo import Echo
from triparty.developer.audit.attacks.frequency import Frequency
from triparty.developer.audit.attacks.gram import Gram
from triparty.developer.audit.attacks.hidden_vocabulary import HiddenVocabulary
from triparty.developer.audit.attacks.inversion import Inversion
from triparty.developer.audit.attacks.known_columns import KnownColumns
from triparty.developer.audit.attacks.kv_cache import KvCache
from triparty.developer.audit.attacks.linking import Linking
from triparty.developer.audit.attacks.norms import Norms
from triparty.developer.audit.attacks.private_weights import PrivateWeights
from triparty.developer.audit.attacks.procrustes import Procrustes, ProcrustesTable
from triparty.developer.audit.attacks.products import Products
from triparty.developer.audit.attacks.public_head import PublicHead
from triparty.developer.audit.attacks.rotation import Rotation
from triparty.developer.audit.attacks.sorted_rows import SortedRows
from triparty.developer.audit.attacks.traffic_shape import TrafficShape

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    HiddenVocabulary(),
    KvCache(),
    Inversion(),
    AttentionMaps(),
    Echo(),
    Alignment(),
    Rotation(),
    PublicHead(),
    PrivateWeights(),
    Products(),
    Linking(),
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
    "Alignment",
    "AttentionMaps",
    "Collusion",
    "CollusionFunction",
    "Echo",
    "Frequency",
    "Gram",
    "HiddenVocabulary",
    "Inversion",
    "KnownColumns",
    "KvCache",
    "Linking",
    "Norms",
    "PrivateWeights",
    "Procrustes",
    "ProcrustesTable",
    "Products",
    "PublicHead",
    "Rotation",
    "SortedRows",
    "TrafficShape",
]
