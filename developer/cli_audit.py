"""`triparty developer audit`: the attacks, mounted on a protected model of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from triparty.common.console import Console, JsonOption, progress
from triparty.common.errors import SettingsError
from triparty.common.files import write_atomic
from triparty.developer.cli_arguments import OutArgument, SourceArgument

if TYPE_CHECKING:
    from triparty.developer.audit import Attack, Audit, Level, Scene
    from triparty.developer.audit.exposure import Exposure


def audit(
    source: SourceArgument,
    out: OutArgument,
    traffic: Annotated[
        Path | None,
        typer.Option(help="Frames that a cloud recorded; default: made from sample texts."),
    ] = None,
    levels: Annotated[str, typer.Option(help="Attackers to play: K2, K0,K2 or K0..K4.")] = (
        "K0..K4"
    ),
    attacks: Annotated[
        str | None, typer.Option(help="Attacks to mount, by name: sorted-rows,...")
    ] = None,
    base: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a public model that SRC may come from; may be repeated. The first "
            "is what attackers of level K3 have; default: SRC itself."
        ),
    ] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT2",
            help="Another instance of SRC, of another cohort or epoch; default: one is made "
            "for the audit if SRC is below 2 GB.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the report as a web page.")
    ] = None,
    compared: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Then measure every mitigation on SRC, in a table: leakage, accuracy, costs. "
            "Takes minutes even for a small model.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Mount the attacks on a protected model's traffic and say what each recovered.

    Attackers: K0 the cloud alone, K1 with known plaintext,

    K2 with the embedding table, K3 with public base weights, K4 with a user's bundle.
    """
    from triparty.developer.audit import Level, set_scene
    from triparty.developer.audit.compare import check_comparable, compare
    from triparty.developer.audit.comparison import table
    from triparty.developer.audit.report import Report, document
    from triparty.developer.audit.reports import alarm, lines, page
    from triparty.developer.audit.subject import Subject
    from triparty.developer.protect.checkpoints import fetch

    console = Console(as_json=as_json)
    chosen = _chosen(attacks, Level.parse(levels))
    if html is not None and not html.parent.is_dir():
        raise SettingsError(f"--html: {html.parent} is no folder")
    if compared:
        folder = fetch(source)
        check_comparable(folder)
    bases = base or []
    first = bases[0] if bases else None
    with ExitStack() as stack:
        scene = set_scene(source, out, trace=traffic, base=first, other=other)
        subject = Subject.of(
            scene,
            source,
            out,
            trace=traffic,
            base=first,
            other=None if other is None else str(other),
        )
        if other is None:
            temporary = stack.enter_context(TemporaryDirectory(prefix="triparty-audit-"))
            scene, made = _with_second_instance(scene, source, out, Path(temporary), chosen)
            subject = replace(subject, other=made)
        report = Report(
            subject,
            _mounted(scene, chosen),
            _exposure(scene, source, bases),
            version=version("triparty"),
            at=datetime.now(UTC),
        )
    if compared:
        report = replace(report, comparison=compare(folder, say=console.say))
    for line in alarm(report):
        console.say(typer.style(line, fg="red", bold=True))
    for line in lines(report):
        console.say(line)
    if report.comparison is not None:
        console.say(table(report.comparison))
    if html is not None:
        write_atomic(html, page(report).encode())
        console.say(f"Written: {html}")
    console.report(document(report))


def _chosen(names: str | None, levels: frozenset[Level]) -> list[Attack]:
    """The attacks that were named, of the levels that were named.

    Raises:
        SettingsError: there is none of that name, or none at all.
    """
    from triparty.developer.audit import ATTACKS

    known = ", ".join(f"{attack.name} ({attack.level})" for attack in ATTACKS)
    wanted = None if names is None else {name.strip() for name in names.split(",")}
    unknown = (wanted or set()) - {attack.name for attack in ATTACKS}
    if unknown:
        raise SettingsError(
            f"no attack is called {', '.join(sorted(unknown))}; there is: {known}"
        )
    chosen = [
        attack
        for attack in ATTACKS
        if attack.level in levels and (wanted is None or attack.name in wanted)
    ]
    if not chosen:
        raise SettingsError(
            f"none of these attacks is of level {', '.join(sorted(levels))}; there is: {known}"
        )
    return chosen


def _with_second_instance(
    scene: Scene, source: str, out: Path, folder: Path, attacks: Sequence[Attack]
) -> tuple[Scene, str | None]:
    """The scene with a second instance if some attack needs one, and where it comes from."""
    from triparty.developer.audit.instances import compiled_again, wanting
    from triparty.developer.audit.scene import with_other
    from triparty.developer.audit.subject import COMPILED

    if not wanting(scene, attacks) or not compiled_again(source, out, folder / "other"):
        return scene, None
    return with_other(scene, source, folder / "other"), COMPILED


def _mounted(scene: Scene, attacks: Sequence[Attack]) -> Audit:
    """What came of the attacks, with a bar that names the one that runs."""
    from triparty.developer.audit import audit as mount

    with progress("attacking", total=len(attacks)) as advance:
        started = False

        def begins(attack: Attack) -> None:
            nonlocal started
            advance(1 if started else 0, note=f"{attack.name} ({attack.level})")
            started = True

        return mount(scene, attacks=attacks, begins=begins)


def _exposure(scene: Scene, source: str, bases: Sequence[Path]) -> Exposure:
    """What is public of the model, compared with the bases that were named."""
    from triparty.developer.audit.exposure import exposure_of
    from triparty.developer.audit.knowledge import given

    return exposure_of(source, given(scene.knowledge.hosted), bases)
