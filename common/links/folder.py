"""Links as a folder: `link.json` says what they are, `link.safetensors` holds their weights.

One folder is the ensemble of links to one target (artifact kind `link`). `link.json` is a
canonical document; fractions are decimal text. Everything in it is checked when it is read.
Weights are float32, named by the member's place: `0.hidden.weight`. They tell of the outputs
that they were trained on, so the files are for their owner alone.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from triparty.common.documents import Members, check_name, read_document_file, write_document
from triparty.common.errors import CheckpointError, ManifestError, SettingsError
from triparty.common.files import make_private_folder, replace_folder, write_private
from triparty.common.links.design import LinkDesign
from triparty.common.links.ensemble import Ensemble, Member
from triparty.common.links.link import Link
from triparty.common.links.specs import read_spec, spec_members
from triparty.common.tensorfile import float_bytes, read_floats

LINK_FILE: Final = "link.json"
WEIGHTS_FILE: Final = "link.safetensors"
LINK_DOCUMENT: Final = "triparty.link"
LINK_MEMBERS: Final = ("name", "target", "links", "expected")
LIMIT_BYTES: Final = 256 << 20
MOST_LINKS: Final = 256


def is_link(folder: Path) -> bool:
    """Whether a folder says that it holds links."""
    return (folder / LINK_FILE).is_file()


def read_link_document(folder: Path) -> Members:
    """The members of a link's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is not a link's.
        FormatVersionError: made by a newer triparty.
    """
    return read_document_file(folder / LINK_FILE, LINK_DOCUMENT, LINK_MEMBERS)


def save_links(ensemble: Ensemble, folder: Path) -> None:
    """Writes the links to a target, in the place of those that are there.

    Raises:
        SettingsError: something else is there.
    """
    if folder.exists() and not is_link(folder):
        raise SettingsError(f"{folder} exists and holds no links: name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.part")
    try:
        make_private_folder(making)
        write_private(making / WEIGHTS_FILE, float_bytes(_weights_of(ensemble)))
        write_private(making / LINK_FILE, _document(ensemble))
        replace_folder(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def open_links(folder: Path) -> Ensemble:
    """Reads the links to a target, as if somebody else had made them.

    Raises:
        ManifestError: `link.json` is absent, not canonical, or says what cannot be.
        FormatVersionError: made by a newer triparty.
        FileTypeError: `link.safetensors` is no whole file of float32 tensors.
        CheckpointError: its weights are not those of the links.
    """
    members = read_link_document(folder)
    try:
        target = read_spec(members.mapping("target"))
        entries = members.items("links")
        if not 1 <= len(entries) <= MOST_LINKS:
            raise ManifestError(f"{len(entries)} links: expected 1 to {MOST_LINKS}")
        weights = read_floats(folder / WEIGHTS_FILE, limit_bytes=LIMIT_BYTES)
        links = tuple(
            _member(entry, target, _under(f"{place}.", weights))
            for place, entry in enumerate(entries)
        )
        if odd := [name for name in weights if not _is_of(name, len(links))]:
            raise CheckpointError(f"weight '{odd[0]:.80}' is of no link")
        name = check_name(members.text("name"), what="target")
        return Ensemble(name, target, links, members.fraction("expected"))
    except SettingsError as error:
        raise ManifestError(f"{folder / LINK_FILE}: {error}") from error


def _document(ensemble: Ensemble) -> bytes:
    return write_document(
        LINK_DOCUMENT,
        {
            "name": ensemble.name,
            "target": spec_members(ensemble.target),
            "expected": repr(float(ensemble.expected)),
            "links": [
                {
                    "source": member.source,
                    "output": spec_members(member.link.design.source),
                    "form": member.link.design.form,
                    "hidden": member.link.design.hidden,
                    "weight": repr(float(member.weight)),
                }
                for member in ensemble.members
            ],
        },
    )


def _member(entry: object, target: Any, weights: Mapping[str, NDArray[Any]]) -> Member:
    names = ("source", "output", "form", "hidden", "weight")
    members = Members(entry, where="link", names=names)
    design = LinkDesign(
        read_spec(members.mapping("output")),
        target,
        _form(members),
        members.integer("hidden"),
    )
    source = check_name(members.text("source"), what="source")
    return Member(source, Link(design, weights), members.fraction("weight"))


def _form(members: Members) -> Any:
    """Checked by the design."""
    return members.text("form")


def _weights_of(ensemble: Ensemble) -> dict[str, NDArray[Any]]:
    return {
        f"{place}.{name}": weight
        for place, member in enumerate(ensemble.members)
        for name, weight in member.link.weights.items()
    }


def _under(prefix: str, weights: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    found = (item for item in weights.items() if item[0].startswith(prefix))
    return {name.removeprefix(prefix): value for name, value in found}


def _is_of(name: str, links: int) -> bool:
    place, _, _ = name.partition(".")
    return place in {str(number) for number in range(links)}
