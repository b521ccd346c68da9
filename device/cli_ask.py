"""`triparty device ask`: a question in plain words about what a gateway recorded."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triparty.common.console import Console, JsonOption
from triparty.common.errors import SettingsError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from triparty.device.ask.ask import Answer, Sent
    from triparty.device.ask.interpretation import Interpretation
    from triparty.device.events.event import Event

MOST_SHOWN = 12


def ask(
    question: Annotated[
        str,
        typer.Argument(
            help="In plain English; '-' reads it from standard input, out of the list of "
            "processes."
        ),
    ],
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch", help="The gateway's configuration (default: the setting 'watch')."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Protected sentence encoder (default: [ask] model).")
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Send nothing: compare letters. Weaker: it knows no synonyms."
        ),
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Say what the question was taken to mean.")
    ] = False,
    privacy: Annotated[
        bool, typer.Option("--privacy", help="Say what left this device.")
    ] = False,
    home: Annotated[Path | None, typer.Option("--home", help="This device's folder.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings as TOML.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask about recorded events: "was anybody in the meeting room between two and three?"."""
    from triparty.device.ask.words import tidied
    from triparty.device.gateway.asking import asked_site, make_asker
    from triparty.device.gateway.outputs import open_events
    from triparty.device.gateway.settings import WatchSettings
    from triparty.device.settings import DeviceSettings

    own = DeviceSettings.load(config, home=home)
    file = watch or own.watch
    if file is None:
        raise SettingsError(
            "which gateway? name its configuration: --watch watch.toml, or set 'watch' in the "
            "device's settings"
        )
    settings = WatchSettings.load(file)
    if model is not None:
        named = settings.ask.model_copy(update={"model": model})
        settings = settings.model_copy(update={"ask": named})
    if question == "-":
        question = sys.stdin.buffer.read().decode("utf-8", "replace").rstrip("\n")
    events = open_events(settings)
    try:
        device = None if local else own.device()
        answer = make_asker(settings, events, device, kept=own.home)(tidied(question))
    finally:
        events.close()
    console = Console(as_json=as_json)
    _show(console, answer, asked_site(settings).zone, why=why, privacy=privacy, local=local)
    console.report(document(answer))


def _show(
    console: Console,
    answer: Answer,
    zone: ZoneInfo,
    *,
    why: bool,
    privacy: bool,
    local: bool,
) -> None:
    console.write(f"{answer.text}\n")
    for event in answer.evidence[:MOST_SHOWN]:
        console.write(f"  {_evidence(event, zone)}\n")
    if len(answer.evidence) > MOST_SHOWN:
        console.write(f"  and {len(answer.evidence) - MOST_SHOWN} more events\n")
    if local:
        console.write("(--local: words were compared by their letters; synonyms are unknown)\n")
    if why:
        for line in reasons(answer.interpretation, answer.confidence):
            console.write(f"{line}\n")
    if privacy:
        for line in account(answer.sent):
            console.write(f"{line}\n")


def _evidence(event: Event, zone: ZoneInfo) -> str:
    wall = datetime.fromtimestamp(event.wall, zone)
    place = event.camera if event.zone is None else f"{event.camera}, {event.zone}"
    what = f"{event.label or event.task}: {event.kind} ({event.before} -> {event.after})"
    said = "" if event.measured else "  predicted"
    clip = f"  {event.clip}" if event.clip else ""
    return f"{wall:%a %d %b %H:%M:%S}  {place}  {what}{said}{clip}"


def reasons(asked: Interpretation, confidence: float) -> list[str]:
    """What a question was taken to mean, in lines."""
    when = "the question says when" if asked.said_when else "the question does not say when"
    lines = [
        f"asked: {asked.intent.value} (ahead of anything else by {asked.lead:.2f}); {when}"
    ]
    lines += [f"'{one.words}': {one.meant} ({one.likeness:.2f})" for one in asked.readings]
    lines.append(f"confidence {confidence:.2f}")
    return lines


def account(sent: Sent) -> list[str]:
    """What left the device for a question, and what can be learnt from it, in lines."""
    if not sent.texts:
        return ["Nothing left this device."]
    lines = [
        f"The cloud got keyed rows of {len(sent.texts)} texts, all words of your question, and "
        f"of {sent.site_texts} names and phrases that are asked for once and kept.",
        "It did not get: words, events, times, pictures, the answer.",
        "From that it can learn: that you asked, when, how long the question is, which words "
        "are equal to earlier ones, and how alike texts mean (keys change no cosine).",
        "Who knows the encoder's public original can read the words: docs/privacy.md.",
    ]
    if sent.facts is not None:
        lines.append("The answer's facts went, keyed as well, to the model that phrased them.")
    return lines


def document(answer: Answer) -> dict[str, Any]:
    """The answer for scripts."""
    asked, found = answer.interpretation, answer.finding
    return {
        "question": answer.question,
        "text": answer.text,
        "verdict": found.verdict,
        "value": answer.value,
        "confidence": answer.confidence,
        "intent": asked.intent.name.lower(),
        "since": asked.span.since,
        "until": asked.span.until,
        "places": [{"camera": one.camera, "zone": one.zone} for one in asked.places],
        "labels": list(asked.labels),
        "readings": [asdict(one) for one in asked.readings],
        "present": found.present,
        "gaps": [asdict(gap) for gap in found.gaps],
        "evidence": [asdict(event) for event in answer.evidence],
        "sent": asdict(answer.sent),
    }
