"""Model links: quality by rows, adaptation, federation, online learning, budgets, cost.

A run is a seed of split, weights and order. Each table is in a file of its own.
"""

from __future__ import annotations

from benchmarks.links_budget import BUDGET
from benchmarks.links_cost import COST
from benchmarks.links_domains import DOMAINS
from benchmarks.links_federation import FEDERATION
from benchmarks.links_online import ONLINE
from benchmarks.links_planning import PLANNING
from benchmarks.links_quality import CONSTANTS, CORRELATION, QUALITY, STUDENTS, TOGETHER

__all__ = [
    "BUDGET",
    "CONSTANTS",
    "CORRELATION",
    "COST",
    "DOMAINS",
    "FEDERATION",
    "ONLINE",
    "PLANNING",
    "QUALITY",
    "STUDENTS",
    "TOGETHER",
]
