"""What an audit attacked, in the words of a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from triparty.developer.audit.knowledge import given
from triparty.developer.audit.scene import Scene

SAMPLED = "made from sample texts"
ITSELF = "the original itself, as if it were public"
COMPILED = "compiled for this audit, with fresh keys"


@dataclass(frozen=True)
class Subject:
    """What was attacked.

    Attributes:
        source: the original, as it was named.
        out: the protected model.
        family: its `model_type`.
        architecture: class of the model.
        scheme: how it is keyed.
        interface: what travels.
        width: of the rows that travel.
        vocabulary: how many tokens there are.
        requests: how many of them the traffic has.
        rows: how many of them the traffic has.
        traffic: where it comes from.
        base: what attackers of level K3 have as the public base.
        other: where the second instance comes from; None if there is none.
    """

    source: str
    out: str
    family: str
    architecture: str
    scheme: str
    interface: str
    width: int
    vocabulary: int
    requests: int
    rows: int
    traffic: str = SAMPLED
    base: str = ITSELF
    other: str | None = None

    @classmethod
    def of(
        cls,
        scene: Scene,
        source: str,
        out: Path,
        *,
        trace: Path | None = None,
        base: Path | None = None,
        other: str | None = None,
    ) -> Subject:
        """What a scene shows.

        Args:
            scene: the stage of the audit.
            source: the original, as it was named.
            out: the protected model.
            trace: the recording that was attacked, if one was.
            base: the public base that was named, if one was.
            other: where the second instance comes from, if there is one.
        """
        knowledge = scene.knowledge
        hosted, info = given(knowledge.hosted), given(knowledge.bundle).info
        return cls(
            source=source,
            out=str(out),
            family=hosted.plan.family,
            architecture=hosted.architecture,
            scheme=scene.scheme,
            interface=info.interface,
            width=info.width,
            vocabulary=info.vocabulary,
            requests=len(knowledge.traffic),
            rows=len(knowledge.rows),
            traffic=SAMPLED if trace is None else f"recorded in {trace}",
            base=ITSELF if base is None else str(base),
            other=other,
        )
