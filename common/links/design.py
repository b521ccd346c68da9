"""The build of a link: source, target, hidden width; from them follow all of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from triparty.common.errors import SettingsError
from triparty.common.links.specs import OutputSpec, Seq, Vec, share_labels

Shapes = dict[str, tuple[int, ...]]
Form = Literal["network", "identity"]

_SCALING: Final = ("mean", "scale")  # made from data before training, and never trained
SLOTS: Final = 4  # things that the decoder of a vector can look at
_LEAST_DEFAULT: Final = 8  # twice one number is too few to bend a line
_MOST_DEFAULT: Final = 256
_MOST_HIDDEN: Final = 4096


@dataclass(frozen=True)
class LinkDesign:
    """A link's network.

    Attributes:
        source: output that the link takes.
        target: output that it predicts.
        form: `network`; or `identity`, a linear map of log-probabilities that begins as no
            map at all, where source and target share their labels.
        hidden: width; 0 takes twice the target's (thesis 5.2.1), 8 to 256.
    """

    source: OutputSpec
    target: OutputSpec
    form: Form = "network"
    hidden: int = 0

    def __post_init__(self) -> None:
        """Refuses what cannot be built.

        Raises:
            SettingsError: an unknown form, one that the outputs do not fit, or a width.
        """
        if self.form not in ("network", "identity"):
            raise SettingsError(f"form {self.form!r:.40}: expected network or identity")
        if self.form == "identity" and not share_labels(self.source, self.target):
            raise SettingsError(
                "an identity link needs source and target with the same labels, single-label"
            )
        if not 0 <= self.hidden <= _MOST_HIDDEN:
            raise SettingsError(f"hidden width {self.hidden}: expected 0 to {_MOST_HIDDEN}")

    @property
    def kind(self) -> str:
        """Such as `vec-to-seq`."""
        return f"{_kind(self.source)}-to-{_kind(self.target)}"

    @property
    def width(self) -> int:
        """Of hidden layers."""
        return self.hidden or min(max(2 * self.target.logits, _LEAST_DEFAULT), _MOST_DEFAULT)

    @property
    def shapes(self) -> Shapes:
        """The shape of each weight by name, for the networks of `forward`."""
        if self.form == "identity":
            width = self.target.logits
            return {"map.weight": (width, width), "map.bias": (width,)}
        shapes = self._source_shapes()
        if isinstance(self.target, Vec):
            shapes |= {
                "output.weight": (self.target.width, self.width),
                "output.bias": (self.target.width,),
            }
            if self.target.task in ("regression", "localisation"):
                shapes |= {f"target.{name}": (self.target.width,) for name in _SCALING}
            return shapes
        width = self.width
        return shapes | {
            "word.weight": (self.target.logits, width),
            **_lstm("decoder", 2 * width, width),
            "output.weight": (self.target.logits, 2 * width),
            "output.bias": (self.target.logits,),
        }

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the weights that training changes; the others scale inputs and outputs."""
        return tuple(name for name in self.shapes if not name.endswith(_SCALING))

    def _source_shapes(self) -> Shapes:
        """From an output to `width` numbers, or to what a decoder looks at."""
        width = self.width
        if isinstance(self.source, Vec):
            inputs = self.source.width
            slots = 1 if isinstance(self.target, Vec) else SLOTS
            return {
                "source.mean": (inputs,),
                "source.scale": (inputs,),
                "hidden.weight": (slots * width, inputs),
                "hidden.bias": (slots * width,),
            }
        shapes: Shapes = {
            "token.weight": (self.source.logits, width),
            **_lstm("encoder", width, width),
        }
        if isinstance(self.target, Vec):
            shapes |= {"hidden.weight": (width, width), "hidden.bias": (width,)}
        return shapes


def default_design(source: OutputSpec, target: OutputSpec) -> LinkDesign:
    """Identity where the labels are shared, else a network twice as wide as the output."""
    return LinkDesign(source, target, "identity" if share_labels(source, target) else "network")


def _kind(spec: OutputSpec) -> str:
    return "seq" if isinstance(spec, Seq) else "vec"


def _lstm(name: str, inputs: int, width: int) -> Shapes:
    return {
        f"{name}.weight_ih": (4 * width, inputs),
        f"{name}.weight_hh": (4 * width, width),
        f"{name}.bias_ih": (4 * width,),
        f"{name}.bias_hh": (4 * width,),
    }
