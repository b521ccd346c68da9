"""A network's design as members of a canonical document, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, cast

from triparty.common.documents import Members
from triparty.common.errors import ManifestError
from triparty.common.nets.design import Design, FilterKind
from triparty.common.nets.inputs import InputSpec, Modality

SIZES: Final = ("units", "embedding", "filters", "text_width", "resolution")
_SPEC: Final = ("name", "modality", "shape", "vocabulary")


def decimal(value: Any) -> str:
    """A fraction as the decimal text that documents carry."""
    return repr(float(value))


def design_members(design: Design) -> dict[str, object]:
    """Law: `read_design(design_members(d), d.tasks) == d`."""
    return {
        "kind": design.kind,
        "inputs": [{**asdict(one), "shape": list(one.shape)} for one in design.inputs],
        "dropout": decimal(design.dropout),
        **{name: getattr(design, name) for name in SIZES},
    }


def read_design(value: object, tasks: int) -> Design:
    """The design of a document; the number of its tasks is told elsewhere.

    Raises:
        ManifestError: missing or unknown members, or another type.
        SettingsError: a design that cannot be built.
    """
    names = ("kind", "inputs", "dropout", *SIZES)
    design = Members(value, where="filter: 'design'", names=names)
    return Design(
        kind=cast(FilterKind, design.text("kind")),
        inputs=tuple(_spec(item) for item in design.items("inputs")),
        tasks=tasks,
        dropout=design.fraction("dropout"),
        **{name: design.integer(name) for name in SIZES},
    )


def _spec(item: object) -> InputSpec:
    spec = Members(item, where="filter: an input", names=_SPEC)
    shape: list[int] = []
    for side in spec.items("shape"):
        if isinstance(side, bool) or not isinstance(side, int):
            raise ManifestError(
                f"filter: a side of a shape must be an integer, got {side!r:.40}"
            )
        shape.append(side)
    modality = cast(Modality, spec.text("modality"))
    return InputSpec(spec.text("name"), modality, tuple(shape), spec.integer("vocabulary"))
