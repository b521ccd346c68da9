"""The build of a filter's network: which inputs, how large, how many tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from triparty.common.errors import SettingsError
from triparty.common.nets.inputs import InputSpec

FilterKind = Literal["skip", "reuse"]
KINDS: Final[tuple[str, ...]] = get_args(FilterKind)
MOST_TASKS: Final = 64
MOST_INPUTS: Final = 8
_LARGEST: Final = 4096


@dataclass(frozen=True)
class Design:
    """A filter's network; the defaults are the published sizes (thesis 3.4.1, 3.5.1).

    Attributes:
        kind: `skip` or `reuse`.
        inputs: one a modality.
        tasks: outputs.
        units: of dense layers before the embedding.
        embedding: numbers that an input of each modality becomes.
        filters: of the first residual block; the second has twice as many.
        text_width: numbers that a token becomes.
        dropout: share of the embedding that is left out in training.
        resolution: images and frames whose longer side is larger are averaged down to about
            this many pixels; 0 takes them as they come, which is the published way.
    """

    kind: FilterKind
    inputs: tuple[InputSpec, ...]
    tasks: int = 1
    units: int = 128
    embedding: int = 200
    filters: int = 32
    text_width: int = 32
    dropout: float = 0.5
    resolution: int = 112

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            SettingsError: an unknown kind, an input twice or none, or a size out of range.
        """
        if self.kind not in KINDS:
            raise SettingsError(f"kind {self.kind!r:.40}: expected one of {', '.join(KINDS)}")
        names = {one.name for one in self.inputs}
        if not 1 <= len(self.inputs) <= MOST_INPUTS or len(names) < len(self.inputs):
            raise SettingsError(
                f"a filter has 1 to {MOST_INPUTS} inputs with different names, got "
                f"{', '.join(one.name for one in self.inputs) or 'none'}"
            )
        if not 1 <= self.tasks <= MOST_TASKS:
            raise SettingsError(f"{self.tasks} tasks: expected 1 to {MOST_TASKS}")
        sizes = (self.units, self.embedding, self.filters, self.text_width)
        if min(sizes) < 1 or max(sizes) > _LARGEST or not 0 <= self.resolution <= _LARGEST:
            raise SettingsError(f"sizes of a network: expected 1 to {_LARGEST}, got {sizes}")
        if not 0.0 <= self.dropout < 1.0:
            raise SettingsError(f"dropout {self.dropout}: expected 0 to below 1")

    @property
    def width(self) -> int:
        """Numbers that an input of all modalities becomes."""
        return self.embedding * len(self.inputs)
