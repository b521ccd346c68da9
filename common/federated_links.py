"""Which links a federation trains, as text that travels; and the names of their weights.

What training changes travels as weights. What it does not (the scaling of inputs and outputs,
which must be the same at all sites) travels with the task, and comes back from nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triparty.common.documents import check_name
from triparty.common.errors import FederationError, TripartyError
from triparty.common.federation import Weights
from triparty.common.links.design import LinkDesign
from triparty.common.links.specs import read_spec, spec_members

_MOST_LINKS = 1000


@dataclass(frozen=True)
class NamedLink:
    """A link between two models.

    Attributes:
        source: name of the model whose output it takes.
        target: name of the model whose output it predicts.
        design: of its network, with what both models' outputs are.
    """

    source: str
    target: str
    design: LinkDesign


@dataclass(frozen=True)
class FederatedLinks:
    """The links of a federation.

    Attributes:
        links: in the order of their weights' names.
    """

    links: tuple[NamedLink, ...]

    def __post_init__(self) -> None:
        """Refuses none, too many, and names that are none.

        Raises:
            FederationError: not 1 to 1000 links.
            ManifestError: a model's name that is none.
        """
        if not 1 <= len(self.links) <= _MOST_LINKS:
            raise FederationError(f"{len(self.links)} links: expected 1 to {_MOST_LINKS}")
        for link in self.links:
            check_name(link.source, what="source")
            check_name(link.target, what="target")

    def text(self) -> str:
        """Law: `FederatedLinks.of_text(links.text()) == links`."""
        return json.dumps([_members(link) for link in self.links], separators=(",", ":"))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """The links of such a text.

        Raises:
            FederationError: not such a text.
        """
        try:
            given = json.loads(text)
            return cls(tuple(_link(one) for one in given))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FederationError(f"not a list of links: {error!s:.200}") from error
        except TripartyError as error:
            raise FederationError(f"not a list of links: {error.message:.300}") from error

    def split(self, links: list[Mapping[str, NDArray[Any]]]) -> tuple[Weights, Weights]:
        """Weights of all links by one set of names.

        Args:
            links: weights of each link, by its design's names.

        Returns:
            What training changes, and what it does not.
        """
        trained: Weights = {}
        fixed: Weights = {}
        for number, (link, weights) in enumerate(zip(self.links, links, strict=True)):
            for name, value in weights.items():
                room = trained if name in link.design.trained else fixed
                room[f"{number}.{name}"] = np.ascontiguousarray(value, np.float32)
        return trained, fixed

    def join(
        self, trained: Mapping[str, NDArray[Any]], fixed: Mapping[str, NDArray[Any]]
    ) -> list[dict[str, NDArray[np.float32]]]:
        """Weights of each link by its design's names; `split` undone.

        Raises:
            FederationError: a weight is missing, unknown or of another shape.
        """
        given = {**trained, **fixed}
        wanted = {
            f"{number}.{name}": shape
            for number, link in enumerate(self.links)
            for name, shape in link.design.shapes.items()
        }
        if given.keys() != wanted.keys():
            odd = min(given.keys() ^ wanted.keys())
            raise FederationError(f"weight {odd!r:.80} is missing or unknown")
        for name, shape in wanted.items():
            if given[name].shape != shape:
                raise FederationError(
                    f"weight {name!r} has shape {given[name].shape}, expected {shape}"
                )
        return [
            {name: given[f"{number}.{name}"] for name in link.design.shapes}
            for number, link in enumerate(self.links)
        ]


def _members(link: NamedLink) -> dict[str, object]:
    return {
        "source": link.source,
        "target": link.target,
        "source_output": spec_members(link.design.source),
        "target_output": spec_members(link.design.target),
        "form": link.design.form,
        "hidden": link.design.hidden,
    }


def _link(given: dict[str, Any]) -> NamedLink:
    design = LinkDesign(
        read_spec(given["source_output"]),
        read_spec(given["target_output"]),
        form=given["form"],
        hidden=int(given["hidden"]),
    )
    return NamedLink(str(given["source"]), str(given["target"]), design)
