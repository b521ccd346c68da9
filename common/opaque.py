"""Opaque words: the text form of keyed token ids, and the tokenizer that reads it.

A model of the interface `tokens` is hosted with a permuted vocabulary, on any engine that
takes text. So the keyed ids travel as text: each id is one *word* of four characters, its
base-32 digits (RFC 4648's alphabet in lower case), most significant first, and words follow
one another with nothing in between. Why so:

* Fixed width, no separator: the text of a sequence is the concatenation of its words, whoever
  puts it together. There is no leading space that a decoder adds to the first word or that a
  server strips, nothing to clean up, and each new id adds exactly its four characters, so that
  incremental detokenisers (`tokenizers.decoders.DecodeStream`, which `transformers serve` and
  vLLM use; vLLM's and SGLang's own, which compare two decoded prefixes) give every word at
  once. Only transformers' `TextStreamer` waits for a space: it gives the same text at the end.
* Four characters name 2**20 ids, about as many characters as the plain text has.
* Letters and digits alone: no JSON escapes, no normaliser or template changes them.

Law: `ids(words(x), vocabulary) == x`, and any other text is refused.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triparty.common.errors import RequestError

WORD_CHARACTERS = 4
MAX_VOCABULARY = 1 << 20

_ALPHABET = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)
_SHIFTS = np.array([15, 10, 5, 0])
_NO_DIGIT = 255
_DIGITS = np.full(256, _NO_DIGIT, np.uint8)
_DIGITS[_ALPHABET] = np.arange(32)

TOKENIZER_FILE = "tokenizer.json"
_CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def words(ids: ArrayLike) -> str:
    """The text of keyed ids.

    Args:
        ids: (T,) integers from 0 to 2**20 - 1.

    Raises:
        RequestError: not such ids.
    """
    array = np.asarray(ids)
    if not array.size:
        array = array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise RequestError(f"expected ids (T,) of integers, got {array.shape} {array.dtype}")
    if array.size and not 0 <= array.min() <= array.max() < MAX_VOCABULARY:
        raise RequestError(f"expected ids from 0 to {MAX_VOCABULARY - 1}")
    digits = (array.astype(np.int64)[:, None] >> _SHIFTS) & 31
    return bytes(_ALPHABET[digits]).decode("ascii")


def ids(text: str, vocabulary: int) -> NDArray[np.int64]:
    """The keyed ids (T,) of a text of opaque words.

    Args:
        text: words without anything between, before or after them.
        vocabulary: V; every id is below it.

    Raises:
        RequestError: any other text.
    """
    if len(text) % WORD_CHARACTERS or not text.isascii():
        raise RequestError(
            f"expected opaque words of {WORD_CHARACTERS} characters a-z and 2-7, "
            f"nothing between them; got {len(text)} characters"
        )
    digits = _DIGITS[np.frombuffer(text.encode("ascii"), np.uint8)]
    if (digits == _NO_DIGIT).any():
        at = int(np.argmax(digits == _NO_DIGIT))
        raise RequestError(
            f"expected opaque words of the characters a-z and 2-7, got another at {at}"
        )
    places = digits.reshape(-1, WORD_CHARACTERS).astype(np.int64) << _SHIFTS
    values: NDArray[np.int64] = places.sum(axis=1)
    if values.size and values.max() >= vocabulary:
        raise RequestError(f"expected words of ids below {vocabulary}, got {values.max()}")
    return values


def tokenizer_files(vocabulary: int) -> dict[str, bytes]:
    """The files of the opaque tokenizer of a hosted model, by name.

    Stock `transformers.AutoTokenizer` and `tokenizers` load them; encoding adds nothing, and
    text that is not made of words is an error there too. No token is declared special:
    engines leave special tokens out of their text, but the device needs every word, the end's
    too. They take end, begin and padding ids from the model's `config.json` and
    `generation_config.json`. The chat template passes the contents of messages through.

    Args:
        vocabulary: V, rows of the hosted embedding, padding rows counted.

    Raises:
        RequestError: a vocabulary that four-character words cannot name.
    """
    if not 0 < vocabulary <= MAX_VOCABULARY:
        raise RequestError(
            f"opaque words name vocabularies of 1 to {MAX_VOCABULARY} ids, got {vocabulary}"
        )
    text = words(np.arange(vocabulary))
    cut = range(0, len(text), WORD_CHARACTERS)
    vocab = {text[at : at + WORD_CHARACTERS]: id_ for id_, at in enumerate(cut)}
    tokenizer: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": f"[a-z2-7]{{{WORD_CHARACTERS}}}"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        # The unknown token is no word, so that encoding anything unknown fails.
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unknown>"},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": _CHAT_TEMPLATE,
    }
    return {TOKENIZER_FILE: _json(tokenizer), "tokenizer_config.json": _json(config)}


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
