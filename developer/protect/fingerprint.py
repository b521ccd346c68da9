"""What decides every byte of a protected model, in words that can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

from triparty.common.files import sha256_file
from triparty.common.tensorfile import TensorFile
from triparty.developer.protect.checkpoints import DOWNLOADED, INDEX_FILE, POOLING_FILES
from triparty.developer.protect.keys import DERIVATION_VERSION
from triparty.developer.protect.survey import Survey

_DIGITS = 12


def fingerprint(decided: Survey, *, seed: int | None) -> dict[str, str]:
    """What decides every byte, but for the master key of a run without a seed.

    Tensor files are told apart by their headers, sizes and times, so that none is read whole.

    Args:
        decided: the source, and what becomes of it.
        seed: from which the keys are derived, or None.
    """
    choices = {name: str(value) for name, value in asdict(decided.choices).items()}
    folder = decided.checkpoint.folder
    small = {
        str(path.relative_to(folder)): f"sha256 {sha256_file(path)[:_DIGITS]}"
        for path in sorted([*folder.iterdir(), *folder.glob(POOLING_FILES)])
        if path.is_file() and _is_small(path)
    }
    shards = {shard.path.name: _described(shard) for shard in decided.checkpoint.shards}
    return {
        "triparty": f"{version('triparty')}, derivation {DERIVATION_VERSION}",
        "keys": "fresh" if seed is None else f"of seed {seed}",
        **choices,
        **small,
        **shards,
    }


def _is_small(path: Path) -> bool:
    """Whether a file is read beside the tensors."""
    tensors = path.name == INDEX_FILE or path.suffix == ".safetensors"
    return not tensors and any(fnmatch(path.name, pattern) for pattern in DOWNLOADED)


def _described(shard: TensorFile) -> str:
    state = shard.path.stat()
    begin = min((entry.offset for entry in shard.entries.values()), default=state.st_size)
    with shard.path.open("rb") as stream:
        header = hashlib.sha256(stream.read(begin)).hexdigest()[:_DIGITS]
    return f"{state.st_size} bytes, header {header}, changed {state.st_mtime_ns}"
