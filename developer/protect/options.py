"""Options of a checkpoint's `config.json`: read with their types, copied only if known.

What the cloud gets is built from an allow-list. It never names the source, the tokenizer or
the special tokens; a key that nobody knows is left out (stock classes ignore it as well).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triparty.common.errors import UnsupportedModelError

# Activations that act on each neuron alone, so that neurons may trade places.
ELEMENTWISE_ACTIVATIONS = frozenset(
    {
        "gelu",
        "gelu_accurate",
        "gelu_fast",
        "gelu_new",
        "gelu_python",
        "gelu_pytorch_tanh",
        "hardswish",
        "leaky_relu",
        "linear",
        "mish",
        "quick_gelu",
        "relu",
        "relu2",
        "relu6",
        "sigmoid",
        "silu",
        "swish",
        "tanh",
    }
)
# Position-only: frequencies that depend on nothing but the pair. The others ("dynamic",
# "longrope") also depend on the length of whatever shares a batch.
ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
# Sources describe themselves with these; they change nothing in what the model computes.
SAFE_VALUES: Mapping[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "pretraining_tp": (None, 1),
    "chunk_size_feed_forward": (None, 0),
    "partial_rotary_factor": (None, 1, 1.0),
    "sliding_window": (None,),
    "auto_map": (None, {}),
}


@dataclass(frozen=True)
class Section:
    """A configuration inside another one, of a part of the model.

    Attributes:
        model_type: of the part.
        known: its options that the plan covers, with their defaults in `transformers`.
    """

    model_type: str
    known: Mapping[str, Any]


class Options:
    """The options of one `config.json`.

    Args:
        document: the parsed file.
        known: names that the family's plan covers, with their defaults in `transformers`, or
            the `Section` that stands there.
    """

    def __init__(self, document: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        """Refuses what every plan refuses that does not know of it."""
        self.document = document
        self._known = known
        for name, safe in SAFE_VALUES.items():
            if name not in known:
                self.require(name, document.get(name, safe[0]), safe)

    def count(self, name: str, *, default: int | None = None) -> int:
        """A positive number.

        Args:
            name: of the option.
            default: value where the option is absent or null.
        """
        value = self._get(name)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be a positive number, got {value!r}"
            )
        return value

    def number(self, name: str) -> float:
        """A positive real number."""
        value = self._get(name)
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be a positive number, got {value!r}"
            )
        return float(value)

    def flag(self, name: str) -> bool:
        """A truth value."""
        value = self._get(name)
        if type(value) is not bool:
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be true or false, got {value!r}"
            )
        return value

    def require(self, name: str, value: Any, choices: Sequence[Any] | frozenset[Any]) -> None:
        """Refuses a value for which there is no plan."""
        if value not in choices:
            known = ", ".join(sorted(map(str, choices)))
            raise UnsupportedModelError(
                f"config.json: {name!r} is {value!r}; there is a plan for: {known}"
            )

    def activation(self, name: str) -> None:
        """Refuses an activation that might look at more than one neuron."""
        self.require(name, self._get(name), ELEMENTWISE_ACTIVATIONS)

    def rope(self) -> None:
        """Refuses rotary positions whose frequencies depend on more than the pair."""
        for name in ("rope_parameters", "rope_scaling"):
            given = self.document.get(name) or {}
            if not isinstance(given, Mapping):
                raise UnsupportedModelError(f"config.json: {name!r} is {given!r}")
            kind = given.get("rope_type", given.get("type", "default"))
            self.require(f"{name}.rope_type", kind, ROPE_TYPES)
            share = given.get("partial_rotary_factor", 1)
            self.require(f"{name}.partial_rotary_factor", share, (1, 1.0))

    def kept(self) -> dict[str, Any]:
        """The options that the plan covers, as the source gives them."""
        return {
            name: self.document[name]
            for name, default in self._known.items()
            if name in self.document and not isinstance(default, Section)
        }

    def section(self, name: str) -> Options:
        """The options of a part of the model.

        Raises:
            UnsupportedModelError: there are none, or they are of another model.
        """
        section, document = self._known[name], self.document.get(name)
        if not isinstance(document, Mapping):
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be an object, got {document!r}"
            )
        given = document.get("model_type", section.model_type)
        self.require(f"{name}.model_type", given, (section.model_type,))
        return Options(document, section.known)

    def sections(self) -> Mapping[str, tuple[str, Options]]:
        """The `model_type` and the options of each part of the model."""
        return {
            name: (known.model_type, self.section(name))
            for name, known in self._known.items()
            if isinstance(known, Section)
        }

    def left_out(self) -> list[str]:
        """Keys of the source that the protected model's configuration does not have."""
        derived = {"model_type", "architectures", "dtype", "torch_dtype"}
        own = set(self.document) - set(self._known) - derived
        nested = {
            f"{name}.{key}"
            for name, (_, section) in self.sections().items()
            for key in section.left_out()
        }
        return sorted(own | nested)

    def _get(self, name: str) -> Any:
        return self.document.get(name, self._known[name])
