"""Every attack of the audit, one a module."""

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.attacks.attention import AttentionMaps
from triparty.developer.audit.attacks.echo import Echo
from triparty.developer.audit.attacks.hidden_vocabulary import HiddenVocabulary
from triparty.developer.audit.attacks.inversion import Inversion
from triparty.developer.audit.attacks.kv_cache import KvCache
from triparty.developer.audit.attacks.sorted_rows import SortedRows

ATTACKS: tuple[Attack, ...] = (
    SortedRows(),
    HiddenVocabulary(),
    KvCache(),
    Inversion(),
    AttentionMaps(),
    Echo(),
)

__all__ = [
    "ATTACKS",
    "AttentionMaps",
    "Echo",
    "HiddenVocabulary",
    "Inversion",
    "KvCache",
    "SortedRows",
]
