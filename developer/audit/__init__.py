"""The attacks: what the cloud can still learn about a protected model and its traffic.

One attack a module (`attacks/`); each takes what its level of attacker knows (`knowledge.py`)
and claims what it recovered (`claims.py`), which is scored against the truth.
"""

from triparty.developer.audit.attack import Attack, Findings, Target, Unmounted
from triparty.developer.audit.attacks import ATTACKS
from triparty.developer.audit.audit import Audit, audit
from triparty.developer.audit.knowledge import Knowledge
from triparty.developer.audit.levels import Level
from triparty.developer.audit.scene import Scene, set_scene

__all__ = [
    "ATTACKS",
    "Attack",
    "Audit",
    "Findings",
    "Knowledge",
    "Level",
    "Scene",
    "Target",
    "Unmounted",
    "audit",
    "set_scene",
]
