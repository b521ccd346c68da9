"""An hour of film before sixteen cameras, with everything failing that can: nothing is lost.

It is counted in film: packets that the gateway took, by their own length, mean over cameras.
`TRIPARTY_HOUR_MINUTES` makes it shorter, `TRIPARTY_HOUR_SPEED` says how much faster than their
own time the cameras play.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from headless import until
from memory_growth import growth
from sentence_encoders import sentence_encoder
from three_parties import Parties, new_cloud
from watched_hour import (
    BALLAST,
    PASSWORD,
    Site,
    Trouble,
    Watcher,
    cameras,
    fill,
    small_disk,
    write_site,
)
from webhook_receiver import Receiver

from triparty.common.pages.passwords import PasswordHash
from triparty.device.events.database import database_url, journal_path
from triparty.device.events.event import Event, Wanted
from triparty.device.events.journal import Journal
from triparty.device.gateway.outputs import open_events
from triparty.device.gateway.settings import WatchSettings

MINUTES = float(os.environ.get("TRIPARTY_HOUR_MINUTES", "60"))
SPEED = float(os.environ.get("TRIPARTY_HOUR_SPEED", "4"))
DISK_MIB = 40
QUESTION = "was anybody seen today?"


def of_document(told: Mapping[str, Any]) -> tuple[Any, ...]:
    """What an event says, as it is told."""
    before, after = (json.dumps(told[key]) for key in ("before", "after"))
    return told["camera"], told["task"], told["zone"], told["wall"], before, after


def of_event(event: Event) -> tuple[Any, ...]:
    """The same, as it is stored."""
    before, after = (json.dumps(value) for value in (event.before, event.after))
    return event.camera, event.task, event.zone, event.wall, before, after


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_an_hour_of_a_site_in_which_everything_fails(tmp_path: Path, test_data: Path) -> None:
    parties = Parties(tmp_path, new_cloud(tmp_path / "cloud"))
    receiver = Receiver()
    try:
        parties.enroll_developer()
        parties.publish(
            parties.protect(sentence_encoder(tmp_path / "encoder"), "sentences"), "sentences"
        )
        parties.enroll_device("box")
        parties.grant("box")
        parties.pull("box")
        with (
            small_disk(tmp_path / "disk", DISK_MIB) as disk,
            cameras(test_data / "clips", SPEED) as watched,
            ExitStack() as in_block,
        ):
            detectors = test_data / "models" / "detectors"
            file = write_site(tmp_path / "site", disk, watched, detectors, receiver.port)
            PasswordHash.of(PASSWORD).write(file.parent / "page.password")
            site = in_block.enter_context(Site(file, parties.device("box"), watched))
            trouble = Trouble(watched, every_s=1.0, lasts_s=3.0)
            page = Watcher(site)
            try:
                marks = lived(site, page, parties, disk)
            finally:
                trouble.stop()
                page.stop()
            until(lambda: all_live(site), within_s=120)
            minutes = site.film_now() / 60
            asked = site.ask(QUESTION)
            assert asked.status_code == 200, asked.text
            assert asked.json()["value"] is True
            assert site.end(signal.SIGTERM) == 0, site.said[-20:]
            judge(site, file, receiver)
    finally:
        receiver.close()
        parties.cloud.stop()
    marks = page.memory_mib
    grown = growth(marks)
    told = {
        "film_minutes": round(minutes, 1),
        "events": len(site.told),
        "troubles": trouble.done,
        "memory_mib": [round(mark) for mark in marks[:: max(1, len(marks) // 20)]],
        "memory_grown_mib": [round(grown.thirds_mib), round(grown.second_half_mib)],
        "page_looks": len(page.waits_s),
        "page_longest_s": round(max(page.waits_s), 2),
        "page_stale": page.stale,
    }
    print(json.dumps(told))
    assert minutes >= MINUTES
    assert trouble.done >= 5
    assert page.failed == []
    assert page.stale <= len(page.waits_s) // 20, told
    assert grown.has_ended, (grown, marks)


def lived(site: Site, page: Watcher, parties: Parties, disk: Path) -> None:
    """Lets an hour of film pass, with all that happens in it."""

    def pass_until(share: float) -> None:
        while site.film_now() < 60 * MINUTES * share:
            time.sleep(2)
            assert site.process.poll() is None, site.said[-20:]

    pass_until(0.08)
    assert site.ask(QUESTION).status_code == 200
    fill(disk)
    pass_until(0.12)
    until(lambda: waiting(disk) >= 3, within_s=300)  # the database takes no more
    page.paused.set()
    assert site.end(signal.SIGKILL) == -signal.SIGKILL
    site.start()
    page.paused.clear()
    pass_until(0.16)
    (disk / BALLAST).unlink()
    assert site.ask(QUESTION).status_code == 200
    page.memory_mib.clear()  # all is loaded: from here on it is flat
    for share in (0.3, 0.6, 0.85):
        pass_until(share)
        parties.cloud.stop(signal.SIGKILL)
        away = site.ask(QUESTION)
        assert away.status_code >= 500, away.text
        parties.cloud.start()
        assert site.ask(QUESTION).status_code == 200
        if share == 0.6:
            fill(disk)
        pass_until(share + 0.05)
        (disk / BALLAST).unlink(missing_ok=True)
        pass_until(share + 0.1)
    pass_until(1.0)


def waiting(disk: Path) -> int:
    """Events that wait for the database in a file."""
    return len(Journal(journal_path(database_url(disk / "results.db"), disk)).rows())


def all_live(site: Site) -> bool:
    return all(camera["state"] == "live" for camera in site.live()["cameras"])


def judge(site: Site, file: Path, receiver: Receiver) -> None:
    """What anybody was told of is in the database, once; and what is there was delivered."""
    events = open_events(WatchSettings.load(file))
    kept, before = list[Event](), None
    while some := events.list(Wanted(before_id=before), limit=1000):
        kept += some
        before = some[-1].id
    events.close()
    times = Counter(map(of_event, kept))
    lost = [told for told in site.told if of_document(told) not in times]
    assert site.told
    assert lost == []
    assert max(times.values()) == 1
    delivered = {json.loads(body)["id"] for _, body in receiver.got}
    assert delivered <= {event.id for event in kept}
    assert len(delivered) >= 0.9 * len(kept), "what is left waits in the outbox"
