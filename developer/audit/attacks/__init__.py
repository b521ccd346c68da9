"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.alignment import Alignment
from triparty.developer.audit.attacks.attention import AttentionMaps
from triparty.developer.audit.attacks.echo import Echo
from triparty.developer.audit.attacks.hidden_vocabulary import HiddenVocabulary
from triparty.developer.audit.attacks.inversion import Inversion
from triparty.developer.audit.attacks.kv_cache import KvCache
from triparty.developer.audit.attacks.linking import Linking
from triparty.developer.audit.attacks.private_weights import PrivateWeights
from triparty.developer.audit.attacks.products import Products
from triparty.developer.audit.attacks.public_head import PublicHead
from triparty.developer.audit.attacks.rotation import Rotation
from triparty.developer.audit.attacks.sorted_rows import SortedRows

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
)

__all__ = [
    "ATTACKS",
    "Alignment",
    "AttentionMaps",
    "Echo",
    "HiddenVocabulary",
    "Inversion",
    "KvCache",
    "Linking",
    "PrivateWeights",
    "Products",
    "PublicHead",
    "Rotation",
    "SortedRows",
]
