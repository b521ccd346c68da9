"""Model links: quality by share of rows, adaptation, federation, online learning, cost.

A run is a seed of split, weights and order. Each table is in a file of its own.
"""

from __future__ import annotations

from benchmarks.links_cost import COST
from benchmarks.links_domains import DOMAINS
from benchmarks.links_federation import FEDERATION
from benchmarks.links_online import ONLINE
from benchmarks.links_quality import CONSTANTS, CORRELATION, QUALITY, STUDENTS, TOGETHER

__all__ = [
    "CONSTANTS",
    "CORRELATION",
    "COST",
    "DOMAINS",
    "FEDERATION",
    "ONLINE",
    "QUALITY",
    "STUDENTS",
    "TOGETHER",
]
