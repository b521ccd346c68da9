"""Tiny random encoders and classifiers, as checkpoint folders of a hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LongformerConfig,
    LongformerForMaskedLM,
    LongformerForSequenceClassification,
    LongformerModel,
    PreTrainedModel,
    ViTConfig,
    ViTForImageClassification,
)

WORDS = ("river", "stone", "lamp", "green", "walks", "under", "seven", "quiet", "doctor", "bee")
VOCABULARY = 48
POSITIONS = 40
LABELS = {0: "joy", 1: "anger", 2: "fear", 3: "none of these"}
PAD, CLS, SEP, UNKNOWN = 1, 2, 3, 4

_SMALL: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": POSITIONS,
    "type_vocab_size": 2,
    "pad_token_id": PAD,
    "bos_token_id": CLS,
    "eos_token_id": SEP,
    "layer_norm_eps": 1e-5,
}
_LABELS: Mapping[str, Any] = {
    "id2label": LABELS,
    "label2id": {name: number for number, name in LABELS.items()},
}
_LONG: Mapping[str, Any] = {"attention_window": 8}
_VIT = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "image_size": 12,
    "patch_size": 4,
}
_CLIP = {
    "text_config": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "projection_dim": 10,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
        "pad_token_id": PAD,
    },
    "vision_config": {**_VIT, "projection_dim": 10},
    "projection_dim": 10,
}


def _model(name: str) -> PreTrainedModel:
    match name:
        case "bert":
            return BertModel(BertConfig(**_SMALL))
        case "bert-labels":
            return BertForSequenceClassification(BertConfig(**_SMALL, **_LABELS))
        case "bert-words":
            return BertForMaskedLM(BertConfig(**_SMALL))
        case "longformer":
            return LongformerModel(LongformerConfig(**_SMALL, **_LONG))
        case "longformer-labels":
            return LongformerForSequenceClassification(
                LongformerConfig(**_SMALL, **_LONG, **_LABELS)
            )
        case "longformer-words":
            return LongformerForMaskedLM(LongformerConfig(**_SMALL, **_LONG))
        case "vit":
            return ViTForImageClassification(ViTConfig(**_VIT, **_LABELS))
        case "clip":
            return CLIPModel(CLIPConfig(**_CLIP))
    raise ValueError(name)


TEXT_MODELS = (
    "bert",
    "bert-labels",
    "bert-words",
    "longformer",
    "longformer-labels",
    "longformer-words",
)
MODELS = (*TEXT_MODELS, "vit", "clip")


def tiny_encoder(name: str, folder: Path) -> Path:
    """A checkpoint of one of `MODELS`, random in every tensor, with what belongs to it."""
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    model = _model(name)
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.3 * torch.randn(tensor.shape, generator=generator)
            is_norm = "norm" in key.lower() and key.endswith("weight")
            tensor.copy_(1 + noise if is_norm else noise)
    model.save_pretrained(folder)
    if name != "vit":
        write_tokenizer(folder)
    if name in ("vit", "clip"):
        write_processor(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of words that puts [CLS] and [SEP] around a text; pairs have two types."""
    special = {"[PAD]": PAD, "[CLS]": CLS, "[SEP]": SEP, "[UNK]": UNKNOWN}
    words = {word: 5 + number for number, word in enumerate(WORDS)}
    fillers = {f"filler{n}": n for n in range(VOCABULARY) if n not in {*special.values()}}
    vocabulary = {w: n for w, n in fillers.items() if n not in {*words.values()}}
    tokenizer = Tokenizer(WordLevel(vocabulary | words | special, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    # What some checkpoints leave in the file, and nobody may believe.
    tokenizer.enable_truncation(6)
    tokenizer.enable_padding(length=6, pad_id=PAD, pad_token="[PAD]")
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
        "model_max_length": 10**30,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def write_processor(folder: Path) -> None:
    described = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 12, "width": 12},
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.3, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(described))


def write_sentence_files(folder: Path, **pooling: Any) -> None:
    """The files of sentence-transformers: one pooling, then vectors of length one."""
    steps = ("", "1_Pooling", "2_Normalize")
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(zip(steps, kinds, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    described = pooling or {"pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(described))
    length = {"max_seq_length": 20, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(length))
