"""The law of a model family, as a class: name tiny models, inherit the tests.

    class TestLlama(FamilyLaw):
        models = {"grouped queries": lambda: LlamaForCausalLM(LlamaConfig(...))}
        controls = {"norm weights skipped": unmoved("norm.weight", 0)}

Law: the protected model, fed what a device sends, answers what the original does, undone;
under every scheme and interface. A control breaks one rule of the plan, and must break the
law with it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from triparty.common.errors import SettingsError, UnknownTensorError
from triparty.common.keying import Bundle
from triparty.common.tensorfile import TensorFile
from triparty.developer.answers import Task, task_of
from triparty.developer.answers.causal import Texts, keyed_inputs
from triparty.developer.protect import FAMILIES, Choices, Survey, protect, survey
from triparty.developer.protect.description import lines, summary
from triparty.developer.protect.plans import Plan
from triparty.developer.protect.rules import Axis, NormRule
from triparty.developer.protect.secret import Secret
from triparty.developer.protect.spaces import Space, fixed, permuted
from triparty.developer.protect.weights import Weights
from triparty.developer.stock import load_model

EXACT = 1e-10
SINGLE_INSIDE = 2e-6
"""Stock RMSNorm and softmax compute in float32 whatever the weights are."""

Break = Callable[[Plan], Plan]


class FamilyLaw:
    """Inherit from this, in a class whose name begins with `Test`.

    Attributes:
        models: tiny models by name: every option that changes the table or the spaces.
        interfaces: that the family has.
        schemes: that the family has.
        options: further choices by name, as `Choices.of` takes them.
        controls: broken plans by name, each for the first model unless it says otherwise.
        least_break: how far a broken plan must be off.
        rounded_model: the model whose rounding is looked at; the first unless it says
            otherwise. It must not choose: a router that is rounded may take another expert.
        is_audited_first: whether an audit of its first choice is part of every run.
    """

    models: ClassVar[Mapping[str, Callable[[], Any]]]
    interfaces: ClassVar[tuple[str, ...]] = ("embeddings", "tokens")
    schemes: ClassVar[tuple[str, ...]] = ("permutation", "orthogonal")
    options: ClassVar[Mapping[str, dict[str, Any]]] = {"norms kept": {"norms": "keep"}}
    controls: ClassVar[Mapping[str, Break]] = {}
    control_scheme: ClassVar[str] = "permutation"
    least_break: ClassVar[float] = 1e-3
    rounded_model: ClassVar[str | None] = None
    is_audited_first: ClassVar[bool] = True

    @classmethod
    def choices(cls) -> Mapping[str, dict[str, Any]]:
        """Every scheme with every interface, and the further options."""
        both = {
            f"{scheme}, {interface}": {"scheme": scheme, "interface": interface}
            for scheme in cls.schemes
            for interface in cls.interfaces
        }
        return {**both, **cls.options}

    # --- what a family may do in its own way

    def samples(self, task: Task, found: Survey) -> Iterator[Any]:
        """Inputs to compare on: unpadded, and padded on either side."""
        rng = np.random.default_rng(3)
        length = min(14, found.info.max_positions)
        ids = rng.integers(0, found.info.vocabulary, (3, length))
        places, cut = np.arange(length)[None], np.array([[0], [length // 3], [length // 2]])
        yield Texts.unpadded(ids)
        yield Texts(ids, places >= cut)
        yield Texts(ids, places < length - cut)

    # --- the law

    def test_protected_equals_original(self, model: str, choice: str, tmp_path: Path) -> None:
        """In float64, the float32 inside of stock classes taken out of the way."""
        source, found = self.protected(model, choice, tmp_path)
        with in_float64():
            assert self.disagreement(source, tmp_path / "out", found) <= EXACT
        assert self.disagreement(source, tmp_path / "out", found) <= SINGLE_INSIDE

    def test_hidden_states_are_the_originals_keyed(
        self, model: str, scheme: str, tmp_path: Path
    ) -> None:
        source = self.source(model, tmp_path)
        choices = Choices.of(scheme=scheme, interface=self.interfaces[0])
        found = protect(str(source), tmp_path / "out", choices=choices)
        with in_float64():
            for plain, keyed in self.hidden_states(source, tmp_path / "out", found):
                assert np.abs(plain - keyed).max() <= EXACT * np.abs(plain).max()

    def test_a_cache_and_greedy_generation_change_nothing(
        self, model: str, choice: str, tmp_path: Path
    ) -> None:
        from triparty.developer.verify import original_greedy, protected_greedy

        source, found = self.protected(model, choice, tmp_path)
        if found.plan.task not in ("causal-lm", "seq2seq-lm"):
            pytest.skip(f"a model of the task {found.plan.task} writes no text")
        bundle = Bundle.open(tmp_path / "out" / "device")
        auto_class = task_of(found.plan.task).auto_class
        original = load_model(source, auto_class)
        protected = load_model(tmp_path / "out" / "model", auto_class)
        ids = np.random.default_rng(5).integers(0, found.info.vocabulary, 7)
        steps = min(16, found.info.max_positions - 7)
        with in_float64():
            expected = original_greedy(original, ids, steps, ())
            assert protected_greedy(protected, bundle, ids, steps) == expected

    @pytest.mark.parametrize(
        ("dtype", "tolerance"), [("float32", 1e-5), ("float16", 4e-2), ("bfloat16", 1.6e-1)]
    )
    def test_rounding_is_that_of_the_dtype(
        self, scheme: str, dtype: str, tolerance: float, tmp_path: Path
    ) -> None:
        model = self.rounded_model or next(iter(self.models))
        source = self.source(model, tmp_path, dtype=dtype)
        choices = Choices.of(scheme=scheme, interface=self.interfaces[0])
        found = protect(str(source), tmp_path / "out", choices=choices)
        assert self.disagreement(source, tmp_path / "out", found) <= tolerance

    def test_a_broken_plan_breaks_the_law(
        self, control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = next(iter(self.models))
        source = self.source(name, tmp_path)
        config = json.loads((source / "config.json").read_text())
        family, breaks = FAMILIES[config["model_type"]], self.controls[control]
        broken = dataclasses.replace(family, plan=lambda *given: breaks(family.plan(*given)))
        monkeypatch.setitem(FAMILIES, family.model_type, broken)  # type: ignore[arg-type]
        choices = Choices.of(
            scheme=self.control_scheme,
            interface=self.interfaces[0],
            norms="keep" if self.control_scheme == "permutation" else "fold",
        )
        found = protect(str(source), tmp_path / "out", choices=choices, seed=1)
        assert self.disagreement(source, tmp_path / "out", found) > self.least_break

    # --- what must not happen

    def test_no_foldable_norm_keeps_its_weights(
        self, model: str, scheme: str, tmp_path: Path
    ) -> None:
        source = self.source(model, tmp_path)
        choices = Choices.of(scheme=scheme, interface=self.interfaces[0])
        plan = protect(str(source), tmp_path / "out", choices=choices).plan
        hosted = values_of(tmp_path / "out" / "model")
        for name, rule in plan.tensors.items():
            if isinstance(rule, NormRule) and rule.foldable and not rule.is_bias:
                assert (hosted[name] == 1 - rule.offset).all(), name

    def test_every_tensor_is_changed(self, model: str, scheme: str, tmp_path: Path) -> None:
        source = self.source(model, tmp_path)
        choices = Choices.of(scheme=scheme, interface=self.interfaces[0])
        plan = protect(str(source), tmp_path / "out", choices=choices).plan
        before, after = values_of(source), values_of(tmp_path / "out" / "model")
        for stored, values in before.items():
            name = plan.canonical(stored)
            if values.size > 8 and values.shape == after[name].shape:
                assert (values != after[name]).any(), name

    def test_the_audit_attacks_it_or_says_why_not(self, choice: str, tmp_path: Path) -> None:
        from triparty.developer.audit import ATTACKS, Level, audit, set_scene

        source = self.source(next(iter(self.models)), tmp_path, dtype="float32")
        out, choices = tmp_path / "out", self.choices()
        found = protect(str(source), out, choices=Choices.of(**choices[choice]))
        if not found.info.vocabulary:
            with pytest.raises(SettingsError, match="takes images alone"):
                set_scene(str(source), out)
            return
        scene = set_scene(str(source), out)
        # Every attack under the first choice; where the others differ is the scene.
        levels = frozenset(Level) if choice == next(iter(choices)) else frozenset({Level.K2})
        heard = audit(scene, levels=levels)
        names = {one.name for one in (*heard.findings, *heard.unmounted)}
        assert names == {attack.name for attack in ATTACKS if attack.level in levels}
        if scene.scheme == "permutation":
            assert {one.name: one for one in heard.findings}["sorted-rows"].recovered >= 0.9

    def test_an_unknown_or_a_missing_tensor_is_an_error(self, tmp_path: Path) -> None:
        from safetensors.numpy import save_file

        source = self.source(next(iter(self.models)), tmp_path)
        choices = Choices.of(interface=self.interfaces[0])
        file = source / "model.safetensors"
        whole = values_of(source)
        save_file({**whole, "model.layers.0.surprise": np.zeros(3)}, file)
        with pytest.raises(UnknownTensorError, match="surprise"):
            survey(str(source), choices)
        found = sorted(name for name in whole if "norm" in name.lower() or "ln" in name)[0]
        save_file({name: array for name, array in whole.items() if name != found}, file)
        with pytest.raises(UnknownTensorError, match="lacks"):
            survey(str(source), choices)

    def test_the_plan_can_be_read(self, choice: str, tmp_path: Path) -> None:
        """What `protect --dry-run` prints: every row, and what this choice gives away."""
        source = self.source(next(iter(self.models)), tmp_path)
        found = survey(str(source), Choices.of(**self.choices()[choice]))
        said = "\n".join(lines(found))
        rows = {rule.pattern for rule in found.plan.rules if rule.axes}
        assert all(pattern in said for pattern in rows)
        assert ("interface 'tokens'" in said) == (found.choices.interface == "tokens")
        facts = summary(found)
        assert facts["family"] == found.plan.family
        assert 0 < facts["layers"] < facts["tensors"]

    # --- how a test computes

    def source(self, model: str, folder: Path, *, dtype: str = "float64") -> Path:
        """A checkpoint of one of the models, every weight random, norms and biases too."""
        made = self.models[model]()
        randomise(made)
        made.to(getattr(torch, dtype)).save_pretrained(folder / "source")
        write_tokenizer(folder / "source", vocabulary_of(made.config))
        return folder / "source"

    def protected(self, model: str, choice: str, folder: Path) -> tuple[Path, Survey]:
        """A checkpoint and what was decided to protect it, in `folder / "out"`."""
        source = self.source(model, folder)
        choices = Choices.of(**self.choices()[choice])
        return source, protect(str(source), folder / "out", choices=choices)

    def disagreement(self, source: Path, out: Path, found: Survey) -> float:
        """max|a - b| / max|a| of the answers to every sample."""
        task = task_of(found.plan.task)
        original = load_model(source, task.auto_class)
        hosted = load_model(out / "model", task.auto_class)
        bundle, worst = Bundle.open(out / "device"), 0.0
        for sample in self.samples(task, found):
            plain = task.original(original, sample)
            undone = task.protected(hosted, bundle, sample)
            assert plain.shape == undone.shape
            assert plain.size
            worst = max(worst, float(np.abs(plain - undone).max() / np.abs(plain).max()))
        return worst

    def hidden_states(
        self, source: Path, out: Path, found: Survey
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """The residual before each layer, and the protected one's with the key undone."""
        task = task_of(found.plan.task)
        original = load_model(source, task.auto_class)
        hosted = load_model(out / "model", task.auto_class)
        residual = transform_of(found, out, "residual")
        texts = next(self.samples(task, found))
        with torch.inference_mode():
            plain = original(
                input_ids=torch.from_numpy(texts.ids), output_hidden_states=True
            ).hidden_states
            inputs = keyed_inputs(Bundle.open(out / "device"), texts)
            keyed = hosted(
                **{name: torch.from_numpy(array) for name, array in inputs.items()},
                output_hidden_states=True,
            ).hidden_states
        assert len(plain) == len(keyed) > 2
        for before, after in zip(plain[:-1], keyed[:-1], strict=True):
            yield before.numpy(), after.numpy() @ residual


def transform_of(found: Survey, out: Path, space: str) -> NDArray[np.float64]:
    """The matrix that undoes the key of a space."""
    keys = Secret.read(out / "secrets").keys
    weights = Weights(found.plan, found.checkpoint.shards, keys, fold=True)
    dual = weights.transform(Axis(space)).dual()
    return dual.apply(np.eye(dual.size), 1).T


def randomise(model: torch.nn.Module) -> None:
    """Random weights and buffers of a size at which a tiny model is far from linear."""
    generator = torch.Generator().manual_seed(7)
    named = [*model.named_parameters(), *model.named_buffers()]
    for name, weights in named:
        if "inv_freq" in name or "position_ids" in name or not weights.is_floating_point():
            continue
        one_axis = weights.ndim < 2
        values = torch.randn(weights.shape, generator=generator)
        weights.data = (values * (1.0 if one_axis else 0.3)).to(weights.dtype)


def values_of(folder: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a float64 folder."""
    files = [TensorFile.open(path) for path in sorted(folder.glob("*.safetensors"))]
    return {
        name: np.array(file.bits(name)).view("<f8") if file.entries[name].dtype == "F64"
        else np.array(file.bits(name))
        for file in files
        for name in file.entries
    }  # fmt: skip


def vocabulary_of(config: Any) -> int:
    """V, or 0 of a model that takes no text."""
    return int(getattr(config.get_text_config(), "vocab_size", 0) or 0)


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A tokenizer of as many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if not vocabulary:
        return
    words = {f"w{i}": i for i in range(vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "name_or_path": "/home/me/secret"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@contextmanager
def in_float64() -> Iterator[None]:
    """What stock classes compute in float32 of float64 values stays float64."""
    to, cast, softmax = torch.Tensor.to, torch.Tensor.type, torch.nn.functional.softmax

    def kept_to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.dtype == torch.float64:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            if kwargs.get("dtype") is torch.float32:
                kwargs["dtype"] = torch.float64
        return to(self, *args, **kwargs)

    def kept_float(self: torch.Tensor) -> torch.Tensor:
        return self if self.dtype == torch.float64 else to(self, torch.float32)

    def kept_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self if self.dtype == torch.float64 and args else cast(self, *args, **kwargs)

    def kept_softmax(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if input.dtype == torch.float64:
            kwargs["dtype"] = None
        return softmax(input, *args, **kwargs)

    with (
        patch.object(torch.Tensor, "to", kept_to),
        patch.object(torch.Tensor, "float", kept_float),
        patch.object(torch.Tensor, "type", kept_type),
        patch.object(torch.nn.functional, "softmax", kept_softmax),
    ):
        yield


def unmoved(words: str, axis: int) -> Break:
    """Leaves an axis of the tensors whose pattern has `words` as it was."""

    def breaks(plan: Plan) -> Plan:
        spaces, rules, hit = dict(plan.spaces), [], False
        for rule in plan.rules:
            if words in rule.pattern and rule.axes:
                hit = True
                names = plan_spaces(plan, rule.axes[axis].space)
                size = sum(plan.spaces[name].size for name in names)
                spaces[f"unmoved {size}"] = fixed(size)
                axes = list(rule.axes)
                axes[axis] = Axis(f"unmoved {size}", axes[axis].role)
                rules.append(dataclasses.replace(rule, axes=tuple(axes)))
            else:
                rules.append(rule)
        assert hit, f"no rule has {words!r}"
        return dataclasses.replace(plan, rules=tuple(rules), spaces=spaces)

    return breaks


def plan_spaces(plan: Plan, axis: str) -> list[str]:
    """The spaces of an axis for the first number of each letter."""
    first = {letter: str(next(iter(numbers))) for letter, numbers in plan.counts.items()}
    for letter, number in first.items():
        axis = axis.replace(f"{{{letter}}}", number)
    return axis.split("|")


def other_spaces(make: Callable[[Plan], Mapping[str, Space]]) -> Break:
    """Replaces some spaces of a plan."""
    return lambda plan: dataclasses.replace(plan, spaces={**plan.spaces, **make(plan)})


def alone(kind: str) -> Break:
    """One space of each layer stays as it was, and what belongs to it does not."""
    return other_spaces(
        lambda plan: {
            f"{kind}.{layer}": fixed(plan.spaces[f"{kind}.{layer}"].size)
            for layer in plan.counts["l"]
        }
    )


def over_all_heads(plan: Plan) -> Mapping[str, Space]:
    """One permutation over the width, as the thesis prints it: mixes the heads."""
    return {
        f"{kind}.{layer}": permuted(f"layer {layer} whole", plan.spaces[f"{kind}.{layer}"].size)
        for layer in plan.counts["l"]
        for kind in ("query", "key")
    }
