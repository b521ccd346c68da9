"""Names and shapes of a checkpoint against the model's, experts written one by one included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from triparty.cloud.serving.loading import load_model
from triparty.cloud.serving.placement import Placement
from triparty.common.errors import CheckpointError

CPU = Placement("cpu")
Tensors = dict[str, torch.Tensor]
MIXTRAL = "model.layers.1.block_sparse_moe.experts."
DEEPSEEK = "model.layers.2.mlp.experts."


@pytest.fixture
def edited(
    tiny_folders: dict[str, Path], copy_with: Callable[..., Path]
) -> Callable[..., Path]:
    """A copy of a family's folder whose tensors a function has changed."""

    def edit(family: str, change: Callable[[Tensors], object], **config: object) -> Path:
        folder = copy_with(tiny_folders[family], **config)
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return edit


def stacked(tensors: Tensors) -> None:
    """Writes Mixtral's experts as the stock class holds them."""
    for layer in range(2):
        stem = f"model.layers.{layer}.block_sparse_moe.experts."
        taken = {
            part: [tensors.pop(f"{stem}{e}.{part}.weight") for e in range(5)]
            for part in ("w1", "w2", "w3")
        }
        gates = [torch.cat(pair) for pair in zip(taken["w1"], taken["w3"], strict=True)]
        mlp = f"model.layers.{layer}.mlp."
        tensors[f"{mlp}experts.gate_up_proj"] = torch.stack(gates)
        tensors[f"{mlp}experts.down_proj"] = torch.stack(taken["w2"])
        tensors[f"{mlp}gate.weight"] = tensors.pop(
            f"model.layers.{layer}.block_sparse_moe.gate.weight"
        )


def without_prefix(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("model.")]:
        tensors[name.removeprefix("model.")] = tensors.pop(name)


def assert_loads_as(folder: Path, original: Path) -> None:
    expected = AutoModelForCausalLM.from_pretrained(original).state_dict()
    got = load_model(folder, placement=CPU).state_dict()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name


def test_every_family_loads_as_transformers_loads_it(tiny_folder: Path) -> None:
    assert_loads_as(tiny_folder, tiny_folder)


@pytest.mark.parametrize("family", ["mixtral", "deepseek_v3"])
def test_the_test_checkpoints_have_their_experts_one_by_one(
    family: str, tiny_folders: dict[str, Path]
) -> None:
    names = load_file(tiny_folders[family] / "model.safetensors").keys()
    assert any(name.startswith((f"{MIXTRAL}4.", f"{DEEPSEEK}7.")) for name in names)


@pytest.mark.parametrize("change", [stacked, without_prefix])
def test_other_ways_to_write_the_same_tensors_load(
    edited: Callable[..., Path],
    tiny_folders: dict[str, Path],
    change: Callable[[Tensors], None],
) -> None:
    assert_loads_as(edited("mixtral", change), tiny_folders["mixtral"])


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("mixtral", f"{MIXTRAL}3.w3.weight"),
        ("mixtral", f"{MIXTRAL}0.w2.weight"),
        ("mixtral", "model.layers.0.block_sparse_moe.gate.weight"),
        ("deepseek_v3", f"{DEEPSEEK}7.up_proj.weight"),
        ("deepseek_v3", "model.layers.1.mlp.gate.e_score_correction_bias"),
        ("deepseek_v3", "model.layers.0.self_attn.kv_b_proj.weight"),
        ("gemma2", "model.layers.0.post_feedforward_layernorm.weight"),
        ("qwen3", "model.layers.2.self_attn.q_norm.weight"),
        ("mistral", "lm_head.weight"),
    ],
)
def test_a_missing_tensor_is_refused(
    edited: Callable[..., Path], family: str, name: str
) -> None:
    folder = edited(family, lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=r"has no tensor|tensors of experts"):
        load_model(folder, placement=CPU)


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("llama", "model.layers.2.mlp.up_proj.weight", (48, 32)),
        ("llama", "model.layers.0.mlp.experts.0.w1.weight", (48, 32)),
        ("llama", "model.layers.0.input_layernorm.gamma", (32,)),
        ("mixtral", f"{MIXTRAL}5.w1.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}00.w1.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}{'9' * 5000}.w1.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}\u0663.w1.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}0.w4.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}0.w1.bias", (48,)),
        ("mixtral", "model.layers.2.block_sparse_moe.experts.0.w1.weight", (48, 32)),
        ("deepseek_v3", f"{DEEPSEEK}8.up_proj.weight", (16, 32)),
        ("deepseek_v3", f"{DEEPSEEK}0.w1.weight", (16, 32)),
        ("deepseek_v3", f"{DEEPSEEK}0.up_proj.weight_scale_inv", (1, 1)),
    ],
)
def test_an_unknown_tensor_is_refused(
    edited: Callable[..., Path], family: str, name: str, shape: tuple[int, ...]
) -> None:
    folder = edited(family, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match="that the model has not"):
        load_model(folder, placement=CPU)


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("mixtral", f"{MIXTRAL}0.w1.weight", (47, 32)),
        ("mixtral", f"{MIXTRAL}0.w2.weight", (48, 32)),
        ("mixtral", f"{MIXTRAL}0.w3.weight", (96, 32)),
        ("deepseek_v3", f"{DEEPSEEK}0.down_proj.weight", (16, 32)),
        ("gemma3_text", "model.layers.0.self_attn.k_norm.weight", (32,)),
    ],
)
def test_another_shape_is_refused(
    edited: Callable[..., Path], family: str, name: str, shape: tuple[int, ...]
) -> None:
    folder = edited(family, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match="has shape"):
        load_model(folder, placement=CPU)


@pytest.mark.parametrize(
    ("family", "name", "shape"),
    [
        ("llama", "layers.0.mlp.up_proj.weight", (48, 32)),
        ("mixtral", "model.layers.0.mlp.gate.weight", (5, 32)),
        ("mixtral", "model.layers.0.mlp.experts.down_proj", (5, 32, 48)),
        ("mixtral", "model.layers.0.mlp.experts.0.w1.weight", (48, 32)),
    ],
)
def test_a_tensor_written_twice_is_refused(
    edited: Callable[..., Path], family: str, name: str, shape: tuple[int, ...]
) -> None:
    folder = edited(family, lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(CheckpointError, match="twice"):
        load_model(folder, placement=CPU)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("gpt2", "transformer.h.0.attn.bias"),  # a mask that old versions stored
        ("deepseek_v3", "model.layers.61.eh_proj.weight"),  # the head for several tokens
    ],
)
def test_a_tensor_that_the_stock_class_leaves_unread_is_left_unread(
    edited: Callable[..., Path], tiny_folders: dict[str, Path], family: str, name: str
) -> None:
    folder = edited(family, lambda tensors: tensors.update({name: torch.ones(3)}))
    assert_loads_as(folder, tiny_folders[family])


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("mixtral", "num_local_experts"),
        ("mixtral", "intermediate_size"),
        ("deepseek_v3", "n_routed_experts"),
        ("deepseek_v3", "moe_intermediate_size"),
        ("deepseek_v3", "n_shared_experts"),
        ("deepseek_v3", "kv_lora_rank"),
        ("gemma2", "head_dim"),
    ],
)
def test_a_size_that_the_tensors_do_not_have_is_refused_before_allocating(
    tiny_folders: dict[str, Path], copy_with: Callable[..., Path], family: str, key: str
) -> None:
    folder = copy_with(tiny_folders[family], **{key: 8 * 10**8})
    with pytest.raises(CheckpointError, match="has shape"):
        load_model(folder, placement=CPU)


class TestTies:
    """A model whose head is its embedding: one of the two tensors is enough, and needed."""

    EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

    def test_the_embedding_becomes_the_head(self, tiny_folders: dict[str, Path]) -> None:
        stored = load_file(tiny_folders["gemma2"] / "model.safetensors")
        assert self.HEAD not in stored
        model = load_model(tiny_folders["gemma2"], placement=CPU)
        assert torch.equal(model.get_output_embeddings().weight, stored[self.EMBEDDING])
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight

    def test_the_head_becomes_the_embedding(
        self, edited: Callable[..., Path], tiny_folders: dict[str, Path]
    ) -> None:
        def move(tensors: Tensors) -> None:
            tensors[self.HEAD] = tensors.pop(self.EMBEDDING)

        assert_loads_as(edited("gemma2", move), tiny_folders["gemma2"])

    def test_neither_is_refused(self, edited: Callable[..., Path]) -> None:
        folder = edited("gemma2", lambda tensors: tensors.pop(self.EMBEDDING))
        with pytest.raises(CheckpointError, match="has no tensor"):
            load_model(folder, placement=CPU)

    def test_a_head_of_its_own_stays_its_own(self, edited: Callable[..., Path]) -> None:
        def hide(tensors: Tensors) -> None:
            tensors[self.HEAD] = tensors[self.EMBEDDING].clone()
            tensors[self.EMBEDDING].zero_()

        model = load_model(edited("gemma2", hide, tie_word_embeddings=False), placement=CPU)
        assert not model.get_input_embeddings().weight.any()
        assert model.get_output_embeddings().weight.any()
