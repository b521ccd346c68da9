"""What an attack on weights reads in a checkpoint: the residual's side of every matrix.

Norm weights are folded into what reads them, in the hosted model (where the compiler did it, so
that they are one) and in the base alike. What is on the other axis of a matrix is keyed too:
the neurons of a layer trade places, and the linear half of a gated layer is scaled. The rules
are those of the plan, which is public: only the key is secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from triparty.common.errors import UnsupportedModelError
from triparty.developer.audit.claims import Matrix
from triparty.developer.audit.views import ModelView, Weighing
from triparty.developer.protect import Choices, Interface
from triparty.developer.protect.families import family_of
from triparty.developer.protect.keys import Keys
from triparty.developer.protect.options import Options
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Experts, NormRule, Role, Rule
from triparty.developer.protect.spaces import Scheme
from triparty.developer.protect.transforms import Monomial

MAX_COLUMNS = 1 << 15
"""How many columns are kept to find a key by: enough for it at any width that is served."""

MAX_VOCABULARY = 4096
"""Up to which size the head is one of the matrices that a key is found by."""


@dataclass(frozen=True, eq=False)
class Side:
    """One matrix of a group of neurons.

    Attributes:
        name: of the tensor (of the first expert's, if experts are side by side).
        matrix: (D, n) float64, a column a neuron.
        scaled: whether a key may scale each column, if only by -1.
    """

    name: str
    matrix: Matrix
    scaled: bool


@dataclass(frozen=True, eq=False)
class Neurons:
    """Matrices with the same coordinates on their other axis, which trade places.

    Attributes:
        sides: at least one.
    """

    sides: tuple[Side, ...]

    @property
    def count(self) -> int:
        """n, how many."""
        return int(self.sides[0].matrix.shape[1])


@dataclass(frozen=True, eq=False)
class Reading:
    """A checkpoint as far as keys of the residual can be found by it.

    Attributes:
        neurons: groups by the name of their first tensor.
        vectors: (D,) rows of the residual itself, by name: biases, keyed positions.
        lengths: (D,) norm weights that stay where they are, by name: signs do not matter.
    """

    neurons: Mapping[str, Neurons]
    vectors: Mapping[str, Matrix]
    lengths: Mapping[str, Matrix]

    @classmethod
    def of(cls, view: ModelView) -> Reading:
        """Reads as many layers as `MAX_COLUMNS` allows, in their order."""
        vectors: dict[str, Matrix] = {}
        lengths: dict[str, Matrix] = {}
        for name, rule in view.plan.tensors.items():
            if len(rule.axes) != 1 or rule.axes[0].space != view.residual:
                continue
            if name not in view.names or not _is_clear(view, rule):
                continue
            known = lengths if rule.axes[0].role is Role.SCALES else vectors
            known[name] = view.tensor(name).reshape(-1)
        for weighing in folded(view):
            if weighing.other in ("positions", "types"):
                vectors[weighing.name] = weighing.matrix
        return cls(_neurons(view), vectors, lengths)


def incomparable(first: ModelView, second: ModelView) -> str | None:
    """Why two checkpoints cannot be two readings of one model; None if they can."""
    if first.plan.family != second.plan.family:
        return f"a {second.plan.family} model is not compared with a {first.plan.family} one"
    sizes, others = _sizes(first), _sizes(second)
    if not sizes:
        return "no matrix has neurons that trade places beside the residual"
    if sizes != others:
        return "the two have different layers"
    if first.width > second.width:
        return "the first has a wider residual than the second"
    return None


def _sizes(view: ModelView) -> Mapping[str, int]:
    """How many neurons trade places in each matrix beside the residual."""
    names = set(view.names)
    return {
        name: view.plan.spaces[rule.axes[0].space].size
        for name, rule in _neuron_rules(view)
        if name in names
    }


def _neuron_rules(view: ModelView) -> Iterator[tuple[str, Rule]]:
    """The rules of matrices whose other axis trades places, that axis first."""
    for name, rule in view.plan.tensors.items():
        spaces = [axis.space for axis in rule.axes]
        if len(spaces) != 2 or spaces.count(view.residual) != 1:
            continue
        other = rule.axes[1 - spaces.index(view.residual)]
        drawn = trades_places(view, other.space)
        if other.space != VOCABULARY and drawn is not None and not drawn.in_place:
            yield name, replace(rule, axes=(other,))


def folded(view: ModelView) -> Iterator[Weighing]:
    """Every matrix with the residual on one axis, norm weights folded into what reads them.

    A head that a checkpoint leaves out because it is tied is the embedding.
    """
    for weighing in view.weighings():
        yield _with_norm(view, weighing)
    for name, source in view.plan.ties.items():
        rule = view.plan.tensors.get(name)
        if rule is None or len(rule.axes) != 2 or name in view.names:
            continue
        if source not in view.names:
            continue
        if rule.axes[1].space == view.residual:
            head = Weighing(name, view.tensor(source).T, reads=True, other=rule.axes[0].space)
            yield _with_norm(view, head)


class FoldedWeights(Mapping[str, Matrix]):
    """The matrices of layers whose neurons trade places, read when they are asked for.

    Their residual is the first axis, norm weights are folded in, and the experts of a layer
    are side by side under the name of the first one: what an attack on weights is after. The
    head is not among them; its tokens are what others are after.
    """

    def __init__(self, view: ModelView) -> None:
        """Reads nothing yet."""
        self._view = view

    def __getitem__(self, name: str) -> Matrix:
        """(d, n) the matrix of a name."""
        return self._matrices[name]

    def __iter__(self) -> Iterator[str]:
        """All names."""
        return iter(self._matrices)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._matrices)

    @cached_property
    def _matrices(self) -> Mapping[str, Matrix]:
        rules = self._view.plan.tensors
        return {
            side.name: side.matrix
            for group in _neurons(self._view).values()
            for side in group.sides
            if VOCABULARY not in [axis.space for axis in rules[side.name].axes]
        }


def headless(base: ModelView | None, hosted: ModelView | None) -> str | None:
    """Why the rows of tokens of two models cannot be compared; None if they can."""
    if hosted is None or base is None:
        return "there is no public base"
    heads = [_head(base), _head(hosted)]
    if heads[0] is None or heads[1] is None:
        return "the model has no head over the vocabulary that reads the residual"
    if heads[0].matrix.shape[1] != heads[1].matrix.shape[1]:
        return "the two have vocabularies of different size"
    return None


def folded_head(view: ModelView) -> Matrix:
    """(D, V) what makes logits of the residual, the last norm folded in.

    Raises:
        TypeError: `headless` says why there is none.
    """
    head = _head(view)
    if head is None:
        raise TypeError(f"{view.folder} has no head that reads the residual")
    return head.matrix


def _head(view: ModelView) -> Weighing | None:
    heads = (one for one in folded(view) if one.reads and one.other == VOCABULARY)
    return next(heads, None)


def trades_places(view: ModelView, space: str) -> Monomial | None:
    """How coordinates of a space trade places under some key, whatever the scheme is.

    Returns:
        None if some scheme mixes them.
    """
    return _drawn(view).get(space)


def _with_norm(view: ModelView, weighing: Weighing) -> Weighing:
    after = view.plan.tensors[weighing.name].after
    norm = view.plan.tensors.get(f"{after}.weight")
    if not weighing.reads or not isinstance(norm, NormRule) or not norm.foldable:
        return weighing
    gamma = view.tensor(norm.pattern) + norm.offset
    return replace(weighing, matrix=weighing.matrix * gamma[:, None])


def _neurons(view: ModelView) -> Mapping[str, Neurons]:
    groups: dict[str, dict[str, list[Weighing]]] = {}
    for weighing in folded(view):
        rule, drawn = view.plan.tensors[weighing.name], trades_places(view, weighing.other)
        if drawn is None or drawn.in_place or not _fits(weighing):
            continue
        layer, side = _group(view, weighing.other, rule), _first_expert(rule)
        groups.setdefault(layer, {}).setdefault(side, []).append(weighing)
    made: dict[str, Neurons] = {}
    columns = 0
    for sides in groups.values():
        neurons = Neurons(tuple(_side(view, name, parts) for name, parts in sides.items()))
        columns += neurons.count * len(neurons.sides)
        if made and columns > MAX_COLUMNS:
            break
        made[neurons.sides[0].name] = neurons
    return made


def _side(view: ModelView, name: str, parts: list[Weighing]) -> Side:
    drawn = trades_places(view, parts[0].other)
    scaled = drawn is not None and drawn.factor is not None
    return Side(name, np.hstack([part.matrix for part in parts]), scaled)


def _group(view: ModelView, space: str, rule: Rule) -> str:
    """What two matrices have in common if their other axes trade places together.

    The halves of a gated layer are two spaces with one order: under the scheme `permutation`
    they are the same one.
    """
    if isinstance(rule.experts, Experts):
        return rule.experts.space
    return str(id(view.plan.spaces[space]))


def _first_expert(rule: Rule) -> str:
    """The name under which the experts of a layer, which trade places, are side by side."""
    return rule.experts.names[0] if isinstance(rule.experts, Experts) else rule.pattern


def _fits(weighing: Weighing) -> bool:
    return weighing.other != VOCABULARY or weighing.matrix.shape[1] <= MAX_VOCABULARY


def _is_clear(view: ModelView, rule: Rule) -> bool:
    """Whether a vector is the residual's as it is: nothing folded away, no secret offset."""
    if isinstance(rule, NormRule):
        return not rule.foldable
    weight = view.plan.tensors.get(f"{rule.pattern.removesuffix('.bias')}.weight")
    hidden = {offset.read_as for offset in _widest(view).offsets.values()}
    return weight is None or not hidden & {axis.space for axis in weight.axes}


@lru_cache(maxsize=8)
def _drawn(view: ModelView) -> Mapping[str, Monomial]:
    """Spaces whose coordinates trade places under the widest group, drawn from some key."""
    keys = Keys.of_seed(0)
    drawn = {
        name: space.draw(keys)
        for name, space in _widest(view).spaces.items()
        if not space.is_mixed
    }
    return {name: made for name, made in drawn.items() if isinstance(made, Monomial)}


@lru_cache(maxsize=8)
def _widest(view: ModelView) -> Plan:
    """The plan under the scheme that mixes all that it can."""
    family, architecture = family_of(view.checkpoint.config)
    options = Options(view.checkpoint.config, family.known)
    try:
        return family.plan(options, Choices(scheme=Scheme.ORTHOGONAL), architecture)
    except UnsupportedModelError:  # devices of this family send ids alone
        choices = Choices(scheme=Scheme.ORTHOGONAL, interface=Interface.TOKENS)
        return family.plan(options, choices, architecture)
