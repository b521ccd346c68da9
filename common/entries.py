"""The files an artifact may hold: its kinds, the suffixes of each, and their entries."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from triparty.common.documents import Members, check_digest, check_integer
from triparty.common.errors import FileTypeError, ManifestError, PathError
from triparty.common.files import safe_relative

MAX_FILES = 10_000
LIMIT_BYTES = 1 << 40  # 1 TiB: above any one checkpoint


class Kind(StrEnum):
    """What an artifact is."""

    MODEL = "model"
    BUNDLE = "bundle"
    MODEL_EDGE = "model-edge"
    GATE = "gate"
    FILTER = "filter"
    LINK = "link"
    PLAN = "plan"
    DATASET = "dataset"


# A device signs its own data sets; everything else may carry a developer's signature.
DEVELOPER_KINDS: Final = frozenset(Kind) - {Kind.DATASET}

CHECKPOINT_SUFFIXES: Final = frozenset({".safetensors", ".json", ".txt", ".model", ".jinja"})
_EDGE_SUFFIXES: Final = frozenset({".onnx", ".safetensors", ".json"})
SUFFIXES: Final = {
    Kind.MODEL: CHECKPOINT_SUFFIXES,
    Kind.BUNDLE: frozenset({".sealed"}),
    Kind.MODEL_EDGE: _EDGE_SUFFIXES,
    Kind.GATE: _EDGE_SUFFIXES,
    Kind.FILTER: _EDGE_SUFFIXES,
    Kind.LINK: frozenset({".safetensors", ".json"}),
    Kind.PLAN: frozenset({".json"}),
    Kind.DATASET: frozenset({".npz", ".parquet", ".json"}),
}
_PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact.

    Attributes:
        path: relative POSIX path.
        sha256: lower-case hex.
        size: bytes.
    """

    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        """Refuses a path that leaves the folder, or no hash."""
        safe_relative(self.path)
        check_digest(self.sha256)
        check_integer(self.size, where=f"size of {self.path!r}")

    def to_json(self) -> dict[str, object]:
        """As a member of a manifest or of a sealed file's index."""
        return {"path": self.path, "sha256": self.sha256, "size": self.size}

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            ManifestError: it was not.
            PathError: a path that leaves the folder.
        """
        members = Members(value, where="file", names=("path", "sha256", "size"))
        return cls(members.text("path"), members.text("sha256"), members.integer("size"))


def check_files(files: tuple[FileEntry, ...], suffixes: frozenset[str]) -> None:
    """Returns only if the files can lie in one folder and all have an allowed suffix.

    Raises:
        ManifestError: none, too many, unsorted, or a path twice.
        PathError: a file where another needs a folder.
        FileTypeError: a suffix that is not allowed.
    """
    if not 1 <= len(files) <= MAX_FILES:
        raise ManifestError(f"an artifact has 1 to {MAX_FILES} files, got {len(files)}")
    paths = [entry.path for entry in files]
    if paths != sorted(set(paths)):
        raise ManifestError("files must be sorted by path, each path once")
    # Some file systems ignore case: two paths that differ only in it would be one file.
    folded = {path.casefold() for path in paths}
    if len(folded) != len(paths):
        raise PathError("two paths differ only in upper and lower case")
    for path in paths:
        check_suffix(path, suffixes)
        for parent in safe_relative(path.casefold()).parents:
            if str(parent) in folded:
                raise PathError(f"{path!r} needs a folder where another path is a file")


def check_suffix(path: str, suffixes: frozenset[str]) -> None:
    """Returns only if the path's suffix is allowed.

    Raises:
        FileTypeError: it is not; the message says what to do.
    """
    suffix = safe_relative(path).suffix
    if suffix.lower() in _PICKLE_SUFFIXES:
        raise FileTypeError(
            f"{path!r} may hold a pickle, which runs code when read: convert it to "
            "safetensors (transformers: save_pretrained) and remove it"
        )
    if suffix not in suffixes:
        allowed = ", ".join(sorted(suffixes))
        raise FileTypeError(
            f"{path!r} has a suffix that this kind of artifact never holds "
            f"(allowed: {allowed}): remove or convert it"
        )
