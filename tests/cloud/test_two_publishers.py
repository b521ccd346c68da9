"""Several machines of one developer publish under one name at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from exchanges import write_protected
from live_cloud import Developer, LiveCloud, running_cloud

from triparty.common.artifacts import Kind
from triparty.common.errors import RollbackError
from triparty.common.latest import Latest
from triparty.developer import publish as publish_module
from triparty.developer.home import Home

PUBLISHERS = 3
ROUNDS = 4


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[LiveCloud]:
    with running_cloud(tmp_path / "cloud") as cloud:
        yield cloud


@pytest.fixture
def developer(cloud: LiveCloud, tmp_path: Path) -> Developer:
    developer = Developer.new(cloud, tmp_path / "one")
    developer.enroll()
    return developer


def on_another_machine(developer: Developer, folder: Path) -> Developer:
    """The same developer, with a copy of its home."""
    shutil.copytree(developer.home.folder, folder / "developer")
    return replace(developer, home=Home(folder / "developer"), folder=folder)


def protected(folder: Path, number: int) -> Path:
    out = write_protected(folder / f"out{number}", epoch=1)
    (out / "model" / "config.json").write_text(f'{{"by": "{folder.name}", "number": {number}}}')
    return out


class Watch:
    """Reads the latest statement all the time; nothing in it may go back."""

    def __init__(self, developer: Developer) -> None:
        self._developer = developer
        self._end = threading.Event()
        self.seen: list[Latest] = []

    def run(self) -> None:
        with self._developer.client() as client:
            while not self._end.is_set():
                self.seen.append(Latest.from_bytes(client.statements().latest.payload))

    def end(self) -> None:
        self._end.set()

    def check(self) -> None:
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            assert after.sequence >= before.sequence
            for name, version in before.versions.items():
                assert after.versions[name] >= version


def publish_until_done(developer: Developer, out: Path) -> int:
    """Publishes, again after each refusal; how often it was refused."""
    for refusals in range(50):
        try:
            developer.publish(out)
        except RollbackError as error:
            clear = any(word in error.message for word in ("higher", "raise it", "older"))
        else:
            return refusals
        assert clear
    raise AssertionError("refused for ever")


def test_publishers_at_once(developer: Developer, tmp_path: Path) -> None:
    machines = [
        on_another_machine(developer, tmp_path / f"machine{i}") for i in range(PUBLISHERS)
    ]
    outs = {m.folder: [protected(m.folder, i) for i in range(ROUNDS)] for m in machines}
    barrier = threading.Barrier(PUBLISHERS)
    watch = Watch(developer)

    def publish_all(machine: Developer) -> int:
        refusals = 0
        for out in outs[machine.folder]:
            barrier.wait(60)
            refusals += publish_until_done(machine, out)
        return refusals

    with ThreadPoolExecutor(PUBLISHERS + 1) as pool:
        watching = pool.submit(watch.run)
        refusals = list(pool.map(publish_all, machines))
        watch.end()
        watching.result()
    watch.check()
    versions = developer.versions()
    assert len(versions) >= PUBLISHERS * ROUNDS
    assert versions == sorted(set(versions), reverse=True)
    assert developer.latest().versions["model/tiny"] == versions[0]
    published = {manifest.files for manifest in developer.manifests(Kind.MODEL)}
    assert len(published) == PUBLISHERS * ROUNDS  # each machine's each model is there
    assert sum(refusals) > 0, "they never met"


def test_a_later_version_stays_current(developer: Developer, tmp_path: Path) -> None:
    """One machine's version 1 is out, another's 2 comes between it and its statement."""
    other = on_another_machine(developer, tmp_path / "other")
    real = publish_module.renew_latest
    met = False

    def interrupted(*args, **kwargs):
        nonlocal met
        if not met:
            met = True
            other.publish(protected(tmp_path, 2))
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish_module, "renew_latest", interrupted)
        developer.publish(protected(tmp_path, 1))
    assert met
    assert developer.versions() == [2, 1]
    assert developer.latest().versions["model/tiny"] == 2
