"""The audit: mounts every attack of the chosen levels on a protected model's traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from triparty.common.errors import SettingsError, StateError
from triparty.common.keying import Bundle
from triparty.developer.audit.knowledge import Attack, Findings, Knowledge, Level, Rows, Table
from triparty.developer.audit.sorted_rows import SortedRows
from triparty.developer.audit.traffic import Traffic, recorded, sampled
from triparty.developer.protect import Choices, Survey, survey
from triparty.developer.protect.compiler import DEVICE_FOLDER

ATTACKS: tuple[Attack, ...] = (SortedRows(),)
_CONTROL_ROWS = 64
_CONTROL_WIDTH = 512


def audit(
    source: str,
    out: Path,
    *,
    trace: Path | None = None,
    levels: frozenset[Level] = frozenset(Level),
    clock: Callable[[], float] = time.perf_counter,
) -> list[Findings]:
    """Attacks a protected model's traffic.

    Args:
        source: folder or hub id of the original: what attackers of K2 and above know.
        out: what `protect` wrote.
        trace: frames that a cloud recorded; None makes traffic from sample texts.
        levels: attackers to play.
        clock: seconds, for the duration of each attack.

    Raises:
        StateError: `out` holds no bundle.
        SettingsError: `out` is not made from `source`, or the trace is of another model.
    """
    if not (out / DEVICE_FOLDER).is_dir():
        raise StateError(f"{out} holds no protected model: it has no {DEVICE_FOLDER} folder")
    bundle = Bundle.open(out / DEVICE_FOLDER)
    traffic = recorded(trace, bundle) if trace else sampled(bundle)
    table = plain_table(survey(source, Choices()))
    _check_belongs(source, out, table, bundle)
    chosen = [attack for attack in ATTACKS if attack.level in levels]
    return [_mounted(attack, traffic, table, clock) for attack in chosen]


def _check_belongs(source: str, out: Path, table: Table, bundle: Bundle) -> None:
    """Refuses to attack one model with another's table, which would recover nothing.

    A key changes the order and the signs of a row's elements, not their sizes.
    """
    info = bundle.info
    belongs = table.rows.shape == (info.vocabulary, info.width)
    if belongs:
        ids = np.linspace(0, info.vocabulary - 1, num=16).astype(np.int64)
        plain = table.rows[ids]
        keyed = np.stack(
            [bundle.rows(ids[i : i + 1], start=0).as_float32()[0] for i in range(16)]
        )
        if table.positions is not None:
            plain = plain + table.positions[0]
        sizes, found = (np.sort(np.abs(rows), axis=-1) for rows in (plain, keyed))
        belongs = bool(np.allclose(sizes, found, rtol=1e-2, atol=1e-5))
    if not belongs:
        raise SettingsError(
            f"{out} was not made from {source}: name the checkpoint it was made from"
        )


def plain_table(found: Survey) -> Table:
    """The embedding table of an original checkpoint."""
    places = {
        found.plan.canonical(name): (shard, name)
        for shard in found.checkpoint.shards
        for name in shard.entries
    }

    tables = {
        name: shard.floats(stored)
        for name, rule in found.plan.device_tables().items()
        for shard, stored in [places[rule.pattern]]
    }
    return Table(tables["rows"], tables.get("positions"))


def _mounted(
    attack: Attack, traffic: Traffic, table: Table, clock: Callable[[], float]
) -> Findings:
    started = clock()
    found = attack.mount(Knowledge(traffic.requests, table))
    seconds = clock() - started
    control = attack.mount(Knowledge(rotated(traffic.requests), table))
    recovered = found.share_right(traffic.truth) if traffic.checked else found.share
    return Findings(
        name=attack.name,
        level=attack.level,
        target=attack.target,
        recovered=recovered,
        seconds=seconds,
        rows=sum(map(len, traffic.requests)),
        matched=found.share,
        checked=traffic.checked,
        control=control.share,
    )


def rotated(requests: Sequence[Rows]) -> tuple[Rows, ...]:
    """Some of the requests under a random rotation, which no permutation undoes.

    A control: an attack that finds tokens in these does not work as it says.
    """
    kept, left = [], _CONTROL_ROWS
    for rows in requests:
        if left > 0:
            kept.append(rows[:left])
            left -= len(rows)
    width = min(kept[0].shape[1], _CONTROL_WIDTH)
    square = np.random.default_rng(0).normal(size=(width, width))
    turn = np.linalg.qr(square)[0].astype(np.float32)
    return tuple(np.hstack([rows[:, :width] @ turn, rows[:, width:]]) for rows in kept)
