"""Encoders: each text and image of any batch gets what the stock class answers to it alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_encoders import LABELS, MODELS, PAD, SEP, TEXT_MODELS, VOCABULARY, tiny_encoder

from triparty.cloud.serving.encoder_families import ENCODERS
from triparty.cloud.serving.encoding import LocalEncoder
from triparty.cloud.serving.engine import Image, Passage, ReplyKind, Text
from triparty.cloud.serving.families import ENCODER_TYPES, family_of
from triparty.cloud.serving.hosting import load_local
from triparty.cloud.serving.loading import holds_encoder, load_encoder
from triparty.cloud.serving.local import LocalEngine
from triparty.cloud.serving.placement import Placement
from triparty.common import opaque
from triparty.common.errors import CheckpointError, FileTypeError, UnsupportedModelError

TOLERANCE = 1e-5
CPU = Placement("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every tiny encoder, as it takes rows and, with the opaque tokenizer, as it takes ids."""
    made = {}
    for name in MODELS:
        folder = tiny_encoder(name, tmp_path_factory.mktemp(name))
        made[name, "rows"] = folder
        hosted = shutil.copytree(folder, tmp_path_factory.mktemp(name) / "ids")
        for file, data in opaque.tokenizer_files(VOCABULARY).items():
            (hosted / file).write_bytes(data)
        made[name, "ids"] = hosted
    return made


def stock(folder: Path) -> Any:
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    return getattr(transformers, name).from_pretrained(folder)


def alone(model: Any, passage: Passage) -> np.ndarray:
    """What the stock class answers to one text or image, with no padding of ours."""
    with torch.inference_mode():
        if isinstance(passage, Image):
            inputs: dict[str, Any] = {"pixel_values": torch.from_numpy(passage.pixels)[None]}
            if hasattr(model, "get_image_features"):
                return model.get_image_features(**inputs).pooler_output[0].numpy()
            return model(**inputs).logits[0].numpy()
        name = "inputs_embeds" if passage.tokens.ndim == 2 else "input_ids"
        inputs = {name: torch.from_numpy(np.array(passage.tokens))[None]}
        inputs["attention_mask"] = torch.ones(1, passage.rows, dtype=torch.long)
        if passage.types is not None:
            inputs["token_type_ids"] = torch.from_numpy(passage.types)[None]
        if passage.attends is not None:
            inputs["global_attention_mask"] = torch.from_numpy(passage.attends)[None].long()
        elif "LongformerForSeq" in type(model).__name__:  # its own default fails on rows
            inputs["global_attention_mask"] = torch.eye(1, passage.rows).long()
        if hasattr(model, "get_text_features"):
            return model.get_text_features(**inputs).pooler_output[0].numpy()
        output = model(**inputs)
    answer = output["logits"] if "logits" in output else output["last_hidden_state"]
    return answer[0][: passage.rows].numpy() if answer.ndim == 3 else answer[0].numpy()


def passages(encoder: LocalEncoder, seed: int = 0) -> list[Passage]:
    """Texts of one row, of all positions and between; images where the model takes some."""
    rng, made = np.random.default_rng(seed), []
    text, image = encoder.info.text, encoder.info.image
    if text is not None:
        lengths = [1, text.positions, *rng.integers(1, text.positions + 1, 9).tolist()]
        for number, length in enumerate(lengths):
            types = attends = None
            tokens: Any
            if text.width is None:
                tokens = rng.integers(SEP + 1, text.vocabulary, length)
                if encoder.info.family == "clip":
                    tokens[-1] = SEP
                if text.types and number % 2:
                    types = rng.integers(0, text.types, length)
            else:
                tokens = rng.normal(size=(length, text.width)).astype(np.float32)
            if text.attends_globally and number % 3:
                attends = rng.random(length) < 0.3
            made.append(Text(tokens, types=types, attends=attends))
    if image is not None:
        for _ in range(3):
            pixels = rng.normal(size=image.shape).astype(np.float32)
            made.append(Image(pixels, image.rows))
    return made


CASES = [(name, form) for name in TEXT_MODELS for form in ("rows", "ids")]
CASES += [("vit", "rows"), ("clip", "ids")]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest, folders: Any) -> tuple[LocalEncoder, Any]:
    folder = folders[request.param]
    return LocalEncoder.load(folder), stock(folder)


def worst(encoder: LocalEncoder, model: Any, batch: list[Passage]) -> float:
    answers = encoder.run(batch)
    assert len(answers) == len(batch)
    errors = []
    for passage, (answer,) in zip(batch, answers, strict=True):
        expected = alone(model, passage)
        assert answer.shape == expected.shape
        assert answer.dtype == np.float32
        errors.append(np.abs(answer - expected).max() / np.abs(expected).max())
    return max(errors)


def test_each_answer_is_the_stock_models_alone(case: tuple[LocalEncoder, Any]) -> None:
    encoder, model = case
    made = passages(encoder)
    assert worst(encoder, model, made) <= TOLERANCE
    assert worst(encoder, model, made[::-1][:4]) <= TOLERANCE


def test_what_else_is_in_the_batch_changes_nothing(case: tuple[LocalEncoder, Any]) -> None:
    encoder, _ = case
    mine, others = passages(encoder)[:4], passages(encoder, seed=1)
    by_themselves = encoder.run(mine)
    among_others = encoder.run([*others, *mine, *others])[len(others) : -len(others)]
    for (one,), (other,) in zip(by_themselves, among_others, strict=True):
        assert np.abs(one - other).max() <= TOLERANCE * np.abs(one).max()


def test_without_the_mask_the_law_breaks(folders: Any) -> None:
    class Unmasked(LocalEncoder):
        def _padded(self, texts: Any) -> Any:
            inputs = super()._padded(texts)
            return inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])}

    encoder = Unmasked.load(folders["bert", "rows"])
    texts = passages(encoder)
    assert worst(encoder, stock(folders["bert", "rows"]), texts) > 1e-2


@pytest.mark.parametrize(
    ("name", "form", "reply", "outputs", "per_row"),
    [
        ("bert", "rows", ReplyKind.HIDDEN, 24, True),
        ("bert-labels", "ids", ReplyKind.LOGITS, len(LABELS), False),
        ("longformer-words", "rows", ReplyKind.LOGITS, VOCABULARY, True),
        ("vit", "rows", ReplyKind.LOGITS, len(LABELS), False),
        ("clip", "ids", ReplyKind.HIDDEN, 10, False),
    ],
)
def test_what_serving_learns_of_a_model(
    folders: Any, name: str, form: str, reply: str, outputs: int, per_row: bool
) -> None:
    info = LocalEncoder.load(folders[name, form]).info
    assert (info.reply, info.outputs, info.per_row) == (reply, outputs, per_row)
    assert (info.text is None) == (name == "vit")
    assert (info.image is None) == (name not in ("vit", "clip"))
    if info.text is not None:
        assert (info.text.width is None) == (form == "ids")
    if name == "longformer-words":
        assert info.text is not None
        assert info.text.positions == 32  # whole windows, and one row of 40 is for padding
        assert info.text.attends_globally


def test_a_refusal_names_every_encoder() -> None:
    assert sorted(ENCODERS) == sorted(ENCODER_TYPES)
    with pytest.raises(UnsupportedModelError, match="clip, longformer"):
        family_of({"model_type": "resnet"})


def test_the_folder_says_what_is_loaded(
    folders: Any, tiny_folders: dict[str, Path], settings: Any
) -> None:
    assert isinstance(load_local(folders["bert", "rows"], settings()), LocalEncoder)
    assert isinstance(load_local(tiny_folders["llama"], settings()), LocalEngine)
    assert not holds_encoder(tiny_folders["gpt2"])


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("bert", {"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        ("bert", {"architectures": ["os.system"]}, "os.system"),
        ("bert", {"architectures": None}, "architectures"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention"),
        ("bert", {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ("vit", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
        ("bert", {"dtype": "float8_e4m3fn"}, "dtype"),
    ],
)
def test_options_that_are_not_served_are_refused(
    folders: Any, copy_with: Callable[..., Path], name: str, changes: Any, word: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=word):
        load_encoder(copy_with(folders[name, "rows"], **changes), placement=CPU)


@pytest.mark.parametrize(
    ("name", "changes", "word"),
    [
        ("bert", {"num_hidden_layers": 10**9}, "layers"),
        ("bert", {"hidden_size": 48}, "shape|not valid"),
        ("bert-labels", {"id2label": None, "num_labels": 10**9}, "num_labels"),
        ("bert-labels", {"id2label": {}, "num_labels": 0}, "num_labels"),
        ("bert-labels", {"id2label": {str(n): "x" for n in range(7)}}, "shape"),
        ("longformer", {"attention_window": 10**9}, "attention_window"),
        ("longformer", {"attention_window": [8, -8]}, "attention_window"),
        ("longformer", {"attention_window": "8"}, "attention_window"),
        ("longformer", {"attention_window": 7}, "not run|not valid|even"),
        ("vit", {"image_size": 10}, "patches"),
        ("vit", {"image_size": 24}, "shape"),
        ("vit", {"num_channels": 1}, "shape"),
        ("vit", {"num_attention_heads": 5}, "shape"),
        ("clip", {"text_config": {"num_hidden_layers": 10**9}}, "layers"),
        ("clip", {"vision_config": 3}, "vision_config"),
    ],
)
def test_senseless_options_are_refused(
    folders: Any, copy_with: Callable[..., Path], name: str, changes: Any, word: str
) -> None:
    with pytest.raises(CheckpointError, match=word):
        LocalEncoder.load(copy_with(folders[name, "rows"], **changes))


@pytest.mark.parametrize("name", ["bert", "vit", "clip"])
@pytest.mark.parametrize("damage", ["missing", "unknown", "shape"])
def test_tensors_that_are_not_the_models_are_refused_before_they_are_loaded(
    folders: Any, tmp_path: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders[name, "rows"], tmp_path / "model")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    chosen = next(key for key in tensors if key.endswith("weight"))
    match damage:
        case "missing":
            del tensors[chosen]
        case "unknown":
            tensors["another.weight"] = torch.zeros(2)
        case "shape":
            tensors[chosen] = tensors[chosen][..., :-1].clone()
    save_file(tensors, path, metadata={"format": "pt"})
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    with pytest.raises(CheckpointError, match="tensor"):
        load_encoder(folder, placement=CPU)


def test_a_file_that_could_hold_code_is_refused(folders: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert", "rows"], tmp_path / "model")
    (folder / "modeling_bert.py").write_text("raise SystemExit")
    with pytest.raises(FileTypeError, match=r"modeling_bert\.py"):
        load_encoder(folder, placement=CPU)


def test_configuration_keys_that_the_class_does_not_declare_are_not_acted_on(
    folders: Any, copy_with: Callable[..., Path]
) -> None:
    hostile = {
        "_attn_implementation": "flash_attention_2",
        "attn_implementation": "evil",
        "output_attentions": True,
        "chunk_size_feed_forward": 3,
        "use_bfloat16": True,
    }
    model, _, _ = load_encoder(copy_with(folders["bert", "rows"], **hostile), placement=CPU)
    assert not model.config.output_attentions
    assert model.config.chunk_size_feed_forward == 0
    assert model.dtype == torch.float32


def test_padding_is_never_the_id_that_ends_a_text(folders: Any, tmp_path: Path) -> None:
    """CLIP reads a text at its first end, so padding with the end would make one."""
    folder = shutil.copytree(folders["clip", "ids"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"pad_token_id": SEP}
    (folder / "config.json").write_text(json.dumps(config))
    encoder, model = LocalEncoder.load(folder), stock(folders["clip", "ids"])
    open_ended = Text(np.array([PAD + 5, PAD + 6, PAD + 7]))  # padded to the long one's rows
    long = Text(np.array([9, 8, 7, SEP]))
    assert worst(encoder, model, [open_ended, long]) <= TOLERANCE
