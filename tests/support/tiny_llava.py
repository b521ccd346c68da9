"""A tiny random LLaVA, as a checkpoint folder of a hub, and what stock code answers with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

VOCABULARY, IMAGE_TOKEN, SIZE, PATCH = 64, 63, 12, 4
IMAGE_ROWS = (SIZE // PATCH) ** 2
WORDS = ("what", "is", "on", "this", "river", "stone", "lamp", "USER", "ASSISTANT", ":")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] | upper }} : "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)


def tiny_llava(folder: Path, *, with_template: bool = True) -> Path:
    """A checkpoint, random in every tensor, with what belongs to it."""
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=40,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=128,
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            ),
            vision_config=CLIPVisionConfig(
                hidden_size=24,
                intermediate_size=20,
                num_hidden_layers=3,
                num_attention_heads=3,
                image_size=SIZE,
                patch_size=PATCH,
            ),
            image_token_index=IMAGE_TOKEN,
            image_seq_length=IMAGE_ROWS,
        )
    )
    generator = torch.Generator().manual_seed(11)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = 0.3 * torch.randn(tensor.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            tensor.copy_(1 + noise if is_norm else noise)
    model.save_pretrained(folder)
    write_tokenizer(folder, with_template=with_template)
    described = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIZE},
        "crop_size": {"height": SIZE, "width": SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder


def write_tokenizer(folder: Path, *, with_template: bool) -> None:
    words = {word: 3 + number for number, word in enumerate(WORDS)}
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<image>": IMAGE_TOKEN}
    used = {*words.values(), *special.values()}
    fillers = {f"filler{n}": n for n in range(VOCABULARY) if n not in used}
    tokenizer = Tokenizer(WordLevel(fillers | words | special, unk_token="<pad>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in special]
    )
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    if with_template:
        (folder / "chat_template.jinja").write_text(TEMPLATE)


def stock_pixels(source: Path, image: Any) -> NDArray[np.float32]:
    """The pixels (3, S, S) that the checkpoint's own image processor makes."""
    processor = CLIPImageProcessorPil.from_pretrained(source)
    pixels: NDArray[np.float32] = processor(image, return_tensors="np")["pixel_values"][0]
    return pixels


def stock_ids(source: Path, text: str, *, special: bool = True) -> list[int]:
    """A text's ids, the image's token as often as the stock processor repeats it."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    ids = tokenizer(text, add_special_tokens=special)["input_ids"]
    return [one for id in ids for one in [id] * (IMAGE_ROWS if id == IMAGE_TOKEN else 1)]


def stock_answer(
    source: Path, ids: list[int], pixels: NDArray[np.float32], steps: int
) -> list[int]:
    """What stock `generate` adds to a text about an image, greedily."""
    model: Any = LlavaForConditionalGeneration.from_pretrained(source)
    model.generation_config = GenerationConfig(
        do_sample=False, pad_token_id=0, eos_token_id=2, max_new_tokens=steps
    )
    given = torch.tensor([ids])
    with torch.inference_mode():
        whole = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            pixel_values=torch.from_numpy(pixels)[None],
        )
    new: list[int] = whole[0, len(ids) :].tolist()
    return new
