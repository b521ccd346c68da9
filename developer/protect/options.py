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
# Whole texts, or a window behind each token: both look at positions alone.
LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
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
    "layer_types": (None,),
    "per_layer_config": (None, {}),
    "auto_map": (None, {}),
}
_NOT_READ = "if the stock class does not read it, set it to null in config.json"
_OTHER_SOURCE = "take a checkpoint of this family without it"
REMEDIES: Mapping[str, str] = {
    "is_encoder_decoder": "only T5 and mT5 have plans for both halves",
    "add_cross_attention": _OTHER_SOURCE,
    "quantization_config": "protect the checkpoint as it was before, then quantise the result",
    "pruned_heads": "take the checkpoint as it was before heads were pruned",
    "pretraining_tp": "set it to 1 in config.json, which changes nothing but rounding",
    "chunk_size_feed_forward": "set it to 0 in config.json, which changes nothing but memory",
    "partial_rotary_factor": _OTHER_SOURCE,
    "sliding_window": _NOT_READ,
    "layer_types": _NOT_READ,
    "per_layer_config": _NOT_READ,
    "auto_map": "the checkpoint brings code of its own, which is never run; if the class of "
    "transformers loads it too, remove 'auto_map' from config.json",
}
"""What helps where an option has a value without a plan."""


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

    def given(self, name: str) -> bool:
        """Whether an option has a value, of its own or by default, that is not null."""
        return self._get(name) is not None

    def has(self, name: str) -> bool:
        """Whether the plan covers an option and it has a value that is not null."""
        return name in self._known and self.given(name)

    def word(self, name: str) -> str:
        """A word."""
        value = self._get(name)
        if type(value) is not str:
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be a word, got {value!r}"
            )
        return value

    def require(self, name: str, value: Any, choices: Sequence[Any] | frozenset[Any]) -> None:
        """Refuses a value for which there is no plan, and says what helps."""
        if value not in choices:
            known = ", ".join(sorted(map(str, choices)))
            raise UnsupportedModelError(
                f"config.json: {name!r} is {value!r}; there is a plan for: {known}; "
                f"{REMEDIES.get(name, 'take a checkpoint with one of these')}"
            )

    def activation(self, name: str) -> None:
        """Refuses an activation that might look at more than one neuron."""
        self.require(name, self._get(name), ELEMENTWISE_ACTIVATIONS)

    def causal(self) -> None:
        """Refuses a decoder whose tokens see what comes after them."""
        name = "use_bidirectional_attention"
        self.require(name, self._get(name), (None, False))

    def layer_types(self, layers: int) -> None:
        """Refuses layers of a kind whose attention no plan knows."""
        given = self._get("layer_types")
        if given is None:
            return
        if not isinstance(given, list) or len(given) != layers:
            raise UnsupportedModelError(
                f"config.json: expected 'layer_types' to be a list of {layers}, got {given!r}"
            )
        for kind in given:
            self.require("layer_types", kind, LAYER_TYPES)

    def rope(self, *, by_layer_type: bool = False) -> None:
        """Refuses rotary positions whose frequencies depend on more than the pair.

        Args:
            by_layer_type: whether `rope_parameters` are given for each type of layer.
        """
        given = self._mapping("rope_parameters")
        if by_layer_type:
            for kind, parameters in given.items():
                self.require("rope_parameters", kind, LAYER_TYPES)
                self._static_rope(f"rope_parameters.{kind}", parameters or {})
        else:
            self._static_rope("rope_parameters", given)
        self._static_rope("rope_scaling", self._mapping("rope_scaling"))

    def _static_rope(self, name: str, given: object) -> None:
        if not isinstance(given, Mapping) or any(
            isinstance(v, Mapping) for v in given.values()
        ):
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be one set of parameters, got {given!r}; "
                "download config.json again"
            )
        kind = given.get("rope_type", given.get("type", "default"))
        self.require(f"{name}.rope_type", kind, ROPE_TYPES)
        share = given.get("partial_rotary_factor", 1)
        self.require(f"{name}.partial_rotary_factor", share, (1, 1.0))

    def _mapping(self, name: str) -> Mapping[str, Any]:
        value = self.document.get(name) or {}
        if not isinstance(value, Mapping):
            raise UnsupportedModelError(
                f"config.json: expected {name!r} to be an object, got {value!r}; download "
                "config.json again"
            )
        return value

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
