"""Traffic to attack: recorded by a cloud, or made from sample text through the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError, FrameError, SettingsError
from triparty.common.keying import Bundle
from triparty.common.wire import bfloat16_to_float32, decode_frames, float32_to_bfloat16
from triparty.developer.audit.claims import Rows
from triparty.developer.audit.knowledge import Table
from triparty.developer.audit.matching import as_is, match
from triparty.developer.example_model import reference_texts

MAX_TRACE_BYTES = 1 << 30
MAX_ROWS = 4096
MAX_TEXT_ROWS = 128
SAMPLED_PARAGRAPHS = 12
QUESTIONS = (
    "Once upon a time there was a little girl who loved to play in the park.",
    "Please summarise the contract of 3 March in two sentences.",
    "My blood test shows a value of 7.2; what should I ask my doctor?",
    "The following example shows how a module is imported.",
)


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests as the cloud saw them.

    Attributes:
        requests: (T, D) float32 each.
        token_ids: for each, (T,) the tokens behind the rows, as far as the bundle tells.
        starts: for each, the position of its first row; empty where it is not known.
    """

    requests: tuple[Rows, ...]
    token_ids: tuple[NDArray[np.int64], ...]
    starts: tuple[int, ...] = ()


def recorded(trace: Path, bundle: Bundle, keyed: Table) -> Traffic:
    """The frames of a cloud's trace, at most `MAX_ROWS` rows from its beginning.

    Args:
        trace: the file.
        bundle: of the model.
        keyed: the table that its devices look up.

    Raises:
        SettingsError: the file cannot be read or holds no rows of this model.
    """
    try:
        size = trace.stat().st_size
        if not 0 < size <= MAX_TRACE_BYTES:
            raise SettingsError(f"{trace} has {size} bytes; expected 1 to {MAX_TRACE_BYTES}")
        data = trace.read_bytes()
        frames = decode_frames(data, limit_bytes=MAX_TRACE_BYTES, max_frames=1 << 24)
        requests = [frame.as_float32() for frame in frames]
    except OSError as error:
        raise SettingsError(f"cannot read {trace}: {error.strerror}") from error
    except FrameError as error:
        raise SettingsError(f"{trace} is no trace of frames: {error.message}") from error
    wanted = _first_rows([r for r in requests if r.ndim == 2 and len(r)])
    if not wanted or any(rows.shape[1] != bundle.info.width for rows in wanted):
        raise SettingsError(
            f"{trace} holds no rows of this model: expected frames (T, {bundle.info.width})"
        )
    return Traffic(tuple(wanted), match(wanted, keyed, as_is).token_ids)


def sampled(bundle: Bundle, keyed: Table) -> Traffic:
    """What a device would send for some sample texts: half a text at once, then by the token.

    With the interface `tokens` these are the hosted rows of the keyed ids that it sends.

    Raises:
        CheckpointError: the tokenizer does not load.
    """
    requests, truth, starts = [], [], []
    for ids in _sample_ids(bundle):
        half = max(1, len(ids) // 2)
        start = 0
        for piece in (ids[:half], *(ids[i : i + 1] for i in range(half, len(ids)))):
            rows = keyed.rows[piece]
            if keyed.positions is not None:
                rows = rows + keyed.positions[start : start + len(piece)]
            requests.append(_as_sent(rows, bundle))
            truth.append(piece)
            starts.append(start)
            start += len(piece)
    return Traffic(tuple(requests), tuple(truth), tuple(starts))


def language(bundle: Bundle) -> tuple[NDArray[np.int64], ...]:
    """Text that anybody has, in the model's tokens: Python's own documentation.

    The paragraphs that `sampled` takes are left out.

    Raises:
        CheckpointError: the tokenizer does not load.
    """
    return tuple(_encoded(bundle, paragraphs()[SAMPLED_PARAGRAPHS:]))


def _as_sent(rows: Rows, bundle: Bundle) -> Rows:
    """The rows after the rounding of the wire."""
    if bundle.info.transport == "bfloat16":
        return bfloat16_to_float32(float32_to_bfloat16(rows))
    if bundle.info.transport == "float16":
        return rows.astype(np.float16).astype(np.float32)
    return rows


def _encoded(bundle: Bundle, texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """The tokens of texts, as many of each as the model has positions."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_file))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{bundle.tokenizer_file} does not load: {error}") from error
    tokenizer.no_padding()  # sentences that go out one by one need none, and padding is no text
    limit = min(bundle.info.max_positions, MAX_TEXT_ROWS)
    encoded = (tokenizer.encode(text).ids[:limit] for text in texts)
    return [np.array(ids, np.int64) for ids in encoded if ids]


def _sample_ids(bundle: Bundle) -> list[NDArray[np.int64]]:
    info = bundle.info
    limit = min(info.max_positions, MAX_TEXT_ROWS)
    texts = _encoded(bundle, sample_texts())
    # A tokenizer of another language than English may have one unknown token for all of it.
    if len(set(np.concatenate(texts).tolist())) > 8:
        return texts
    rng = np.random.default_rng(0)
    return [rng.integers(0, info.vocabulary, min(32, limit)) for _ in texts]


def sample_texts() -> list[str]:
    """Questions as people ask them, and some text of Python's own documentation."""
    return [*QUESTIONS, *paragraphs()[:SAMPLED_PARAGRAPHS]]


def paragraphs() -> list[str]:
    """The paragraphs of Python's own documentation."""
    return [line for topic in reference_texts() for line in topic.splitlines()]


def _first_rows(requests: list[Rows]) -> list[Rows]:
    kept: list[Rows] = []
    left = MAX_ROWS
    for rows in requests:
        if left <= 0:
            break
        kept.append(rows[:left])
        left -= len(rows)
    return kept
