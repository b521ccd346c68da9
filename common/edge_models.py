"""The files of a model for the edge: an ordinary ONNX file, what its output is, what it costs.

The cloud hosts a library of them; plans choose from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from triparty.common.documents import Members, read_document_file, write_document
from triparty.common.errors import FileTypeError, ManifestError, SettingsError
from triparty.common.files import make_private_folder, write_private
from triparty.common.links.planning.costs import Cost
from triparty.common.links.specs import OutputSpec, read_spec, spec_members

MODEL_FILE: Final = "model.json"
NETWORK_FILE: Final = "model.onnx"
LIMIT_BYTES: Final = 8 << 30
_DOCUMENT: Final = "triparty.model-edge"
_MEMBERS: Final = ("output", "cost")
_COST: Final = ("memory_mib", "latency_ms", "load_s")


@dataclass(frozen=True)
class EdgeModel:
    """What is known of a model for the edge.

    Attributes:
        spec: of its output, as links know it.
        cost: as its developer measured it; devices measure their own.
    """

    spec: OutputSpec
    cost: Cost = field(default_factory=Cost)

    def save(self, network: Path, folder: Path) -> None:
        """Writes the folder, for its owner alone.

        Args:
            network: an ONNX file that holds its weights.
            folder: that does not exist yet.

        Raises:
            SettingsError: the folder exists.
            FileTypeError: the network cannot be read.
        """
        if folder.exists():
            raise SettingsError(f"{folder} exists: name another folder")
        try:
            data = network.read_bytes()
        except OSError as error:
            raise FileTypeError(f"cannot read {network}: {error.strerror}") from error
        make_private_folder(folder)
        write_private(folder / NETWORK_FILE, data)
        write_private(folder / MODEL_FILE, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The document; law: what `open` reads of it is this."""
        cost = {part: repr(float(getattr(self.cost, part))) for part in _COST}
        members = {"output": spec_members(self.spec), "cost": cost}
        return write_document(_DOCUMENT, members)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads what is known of a model; the network is not read.

        Raises:
            ManifestError: `model.json` is absent, not canonical, or says what cannot be.
            FormatVersionError: made by a newer triparty.
            FileTypeError: there is no network.
        """
        members = read_edge_document(folder)
        if not (folder / NETWORK_FILE).is_file():
            raise FileTypeError(f"{folder} has no {NETWORK_FILE}")
        try:
            cost = Members(members.mapping("cost"), where="model-edge: 'cost'", names=_COST)
            return cls(
                read_spec(members.mapping("output")),
                Cost(**{part: cost.fraction(part) for part in _COST}),
            )
        except SettingsError as error:
            raise ManifestError(f"{folder / MODEL_FILE}: {error}") from error


def is_edge_model(folder: Path) -> bool:
    """Whether a folder says that it is a model for the edge."""
    return (folder / MODEL_FILE).is_file()


def read_edge_document(folder: Path) -> Members:
    """The members of its document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is none.
        FormatVersionError: made by a newer triparty.
    """
    return read_document_file(folder / MODEL_FILE, _DOCUMENT, _MEMBERS)
