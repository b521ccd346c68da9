"""Traffic to attack: recorded by a cloud, or made from sample text through the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triparty.common.errors import CheckpointError, FrameError, SettingsError
from triparty.common.keying import EMBEDDING_FILE, Bundle
from triparty.common.tensorfile import TensorFile
from triparty.common.wire import decode_frames
from triparty.developer.audit.knowledge import Recovered, Rows, Table
from triparty.developer.audit.matching import as_is, match

MAX_TRACE_BYTES = 1 << 30
MAX_ROWS = 4096
SAMPLE_TEXTS = (
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
        truth: the tokens behind them, as far as the bundle tells.
        checked: whether the bundle tells of any.
    """

    requests: tuple[Rows, ...]
    truth: Recovered
    checked: bool


def recorded(trace: Path, bundle: Bundle) -> Traffic:
    """The frames of a cloud's trace, at most `MAX_ROWS` rows from its beginning.

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
    truth = match(wanted, keyed_table(bundle), as_is)
    return Traffic(tuple(wanted), truth, checked=truth.share > 0)


def sampled(bundle: Bundle) -> Traffic:
    """What a device would send for some sample texts: the text at once, then a token a time.

    Raises:
        CheckpointError: the tokenizer does not load.
    """
    texts = _sample_ids(bundle)
    requests, truth = [], []
    for ids in texts:
        half = max(1, len(ids) // 2)
        pieces = [ids[:half], *(ids[i : i + 1] for i in range(half, len(ids)))]
        start = 0
        for piece in pieces:
            requests.append(bundle.rows(piece, start=start).as_float32())
            truth.append(piece)
            start += len(piece)
    return Traffic(tuple(requests), Recovered(tuple(truth)), checked=True)


def keyed_table(bundle: Bundle) -> Table:
    """The tables that every device of this epoch holds."""
    file = TensorFile.open(bundle.folder / EMBEDDING_FILE)
    positions = file.floats("positions") if bundle.info.positions else None
    return Table(file.floats("rows"), positions)


def _sample_ids(bundle: Bundle) -> list[NDArray[np.int64]]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(bundle.tokenizer_file))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{bundle.tokenizer_file} does not load: {error}") from error
    info = bundle.info
    limit = info.max_positions
    texts = [np.array(tokenizer.encode(text).ids[:limit], np.int64) for text in SAMPLE_TEXTS]
    # A tokenizer of another language than English may have one unknown token for all of it.
    if len(set(np.concatenate(texts).tolist())) > 8:
        return [ids for ids in texts if len(ids)]
    rng = np.random.default_rng(0)
    return [rng.integers(0, info.vocabulary, min(32, limit)) for _ in SAMPLE_TEXTS]


def _first_rows(requests: list[Rows]) -> list[Rows]:
    kept: list[Rows] = []
    left = MAX_ROWS
    for rows in requests:
        if left <= 0:
            break
        kept.append(rows[:left])
        left -= len(rows)
    return kept
