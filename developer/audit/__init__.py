"""The attacks: what the cloud can still learn about a protected model's traffic.

One attack a module; each takes what its level of attacker knows and says what it recovered.
"""

from triparty.developer.audit.audit import ATTACKS, audit
from triparty.developer.audit.knowledge import Attack, Findings, Knowledge, Level, Recovered

__all__ = ["ATTACKS", "Attack", "Findings", "Knowledge", "Level", "Recovered", "audit"]
