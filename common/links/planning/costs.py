"""What models cost and what may be spent: memory and latency, as measured on a device."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from triparty.common.documents import check_name
from triparty.common.errors import ManifestError, SettingsError
from triparty.common.links.planning.problem import Resource

MEMORY: Final = Resource("memory_mib", "MiB")
LATENCY: Final = Resource("latency_ms", "ms")
RESOURCES: Final = (MEMORY, LATENCY)
"""All chosen models are loaded at once and run one after the other: both add up."""


@dataclass(frozen=True)
class Cost:
    """Of a model or of a link.

    Attributes:
        memory_mib: that it takes while it is loaded.
        latency_ms: that it takes for one input.
        load_s: that loading takes.
    """

    memory_mib: float = 0.0
    latency_ms: float = 0.0
    load_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: a number below 0, or not finite.
        """
        for value in (self.memory_mib, self.latency_ms, self.load_s):
            if not 0 <= value < math.inf:
                raise SettingsError(f"a cost is a number of at least 0, got {value}")


@dataclass(frozen=True)
class Budget:
    """What may be spent; what is None is not short.

    Attributes:
        memory_mib: of all models and links that are loaded.
        latency_ms: of all of them for one input.
    """

    memory_mib: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            SettingsError: no budget at all, or one below 0.
        """
        given = [value for value in (self.memory_mib, self.latency_ms) if value is not None]
        if not given or not all(0 <= value < math.inf for value in given):
            raise SettingsError("a plan needs a budget of memory or latency, of at least 0")

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Those that are short."""
        return tuple(one for one in RESOURCES if getattr(self, one.name) is not None)


def read_costs(path: Path) -> dict[str, Cost]:
    """The costs of models from a JSON file: an object of objects, by the models' names.

    Raises:
        ManifestError, SettingsError: it cannot be read, or says what cannot be.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict) or not value:
        raise ManifestError(f"{path}: expected an object with the cost of each model")
    return {
        check_name(name, what="model"): _cost(one, path, name) for name, one in value.items()
    }


def costs_bytes(costs: Mapping[str, Cost]) -> bytes:
    """The file that `read_costs` reads."""
    told = {name: dict(vars(cost)) for name, cost in costs.items()}
    return json.dumps(told, indent=2).encode() + b"\n"


def _cost(value: Any, path: Path, name: str) -> Cost:
    known = Cost.__dataclass_fields__
    is_cost = isinstance(value, dict) and value.keys() <= known.keys()
    if not is_cost or not all(type(one) in (int, float) for one in value.values()):
        raise ManifestError(
            f"{path}: the cost of '{name}' must have numbers for some of {', '.join(known)}"
        )
    return Cost(**value)
