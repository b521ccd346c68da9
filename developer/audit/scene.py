"""The stage of an audit: what attackers know, and the truth they are scored against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triparty.common.deviceinfo import EMBEDDINGS
from triparty.common.errors import SettingsError, StateError
from triparty.common.keying import EMBEDDING_FILE, Bundle
from triparty.common.tensorfile import TensorFile
from triparty.developer.answers import task_of
from triparty.developer.audit.claims import UNKNOWN, Matrix, Rows, Truth
from triparty.developer.audit.knowledge import Knowledge, KnownRows, Table, given
from triparty.developer.audit.reading import FoldedWeights
from triparty.developer.audit.traffic import Traffic, language, recorded, sampled
from triparty.developer.audit.views import ModelView
from triparty.developer.protect.compiler import DEVICE_FOLDER, MODEL_FOLDER
from triparty.developer.protect.modelkey import ModelKey
from triparty.developer.protect.plans import VOCABULARY, Plan
from triparty.developer.protect.rules import Rule
from triparty.developer.protect.spaces import Scheme
from triparty.developer.protect.weights import factor_of


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about one protected model and its traffic.

    Attributes:
        knowledge: all that any attacker can have; an attack gets what its level gives.
        truth: what attacks are scored against.
        scheme: how the model is keyed.
    """

    knowledge: Knowledge
    truth: Truth
    scheme: Scheme


def set_scene(
    source: str,
    out: Path,
    *,
    trace: Path | None = None,
    base: Path | None = None,
    other: Path | None = None,
) -> Scene:
    """Opens a protected model with everything that attackers may have.

    Args:
        source: folder or hub id of the original.
        out: what `protect` wrote.
        trace: frames that a cloud recorded; None makes traffic from sample texts.
        base: the public model that the original was trained from; None takes the original
            itself, as if it were public.
        other: what `protect` wrote for another cohort or epoch; None if there is none.

    Raises:
        StateError: `out` or `other` holds no bundle or no secrets.
        SettingsError: `out` is not made from `source`, its devices have no table of tokens,
            or the trace is of another model.
    """
    if not (out / DEVICE_FOLDER).is_dir():
        raise StateError(f"{out} holds no protected model: it has no {DEVICE_FOLDER} folder")
    bundle = Bundle.open(out / DEVICE_FOLDER)
    if not bundle.info.vocabulary:
        raise SettingsError(
            f"the audit attacks models of text, and {out} takes images alone: their leaks are "
            f"listed in docs/privacy.md"
        )
    key = ModelKey.open(out, source)
    hosted = ModelView.open(out / MODEL_FOLDER)
    original = ModelView.open(key.decided.checkpoint.folder)
    by_rows = bundle.info.interface == EMBEDDINGS
    table = plain_table(original, key.decided.plan, positions=by_rows)
    residual = _residual_key(key, hosted)
    keyed = keyed_table(bundle, hosted)
    _check_belongs(source, out, table, keyed, residual)
    traffic = recorded(trace, bundle, keyed) if trace else sampled(bundle, keyed)
    truth = Truth(
        token_ids=traffic.token_ids,
        rows=table.rows.astype(np.float64),
        key=residual,
        vocabulary=key.weights.order_of(VOCABULARY).order(),
        weights=FoldedWeights(original),
        answers=lambda sample: _answers(original, bundle, sample),
    )
    knowledge = Knowledge(
        traffic=traffic.requests,
        hosted=hosted,
        known=_known(traffic, table),
        table=table,
        base=original if base is None else ModelView.open(base),
        bundle=bundle,
        starts=traffic.starts,
        language=language(bundle),
    )
    scene = Scene(knowledge, truth, key.secret.choices.scheme)
    return scene if other is None else with_other(scene, source, other)


def with_other(scene: Scene, source: str, other: Path) -> Scene:
    """The scene with a second instance of the same original, of another cohort or epoch.

    Raises:
        StateError: `other` holds no secrets, or is made from another original.
        SettingsError: its rows are of another width, or it is the same instance.
    """
    hosted = given(scene.knowledge.hosted)
    key = _residual_key(ModelKey.open(other, source), hosted)
    if key.shape != scene.truth.key.shape:
        raise SettingsError(
            f"{other} has rows of width {key.shape[1]}, the model under attack has "
            f"{scene.truth.key.shape[1]}: name another instance of the same model"
        )
    if np.array_equal(key, scene.truth.key):
        raise SettingsError(f"{other} has the same key: name another instance of the model")
    return Scene(
        replace(scene.knowledge, other=ModelView.open(other / MODEL_FOLDER)),
        replace(scene.truth, other_key=key),
        scene.scheme,
    )


def plain_table(model: ModelView, plan: Plan, *, positions: bool) -> Table:
    """The embedding table of an original checkpoint, before it is keyed.

    Args:
        model: the original.
        plan: by which it was protected: whose rows carry the factor of a lookup depends on
            what travels.
        positions: whether positions are part of what travels, if the family has them.
    """
    tables = {
        name: _looked_up(model, plan.tensors[rule.pattern], rule.device_rows)
        for name, rule in model.tables.items()
        if positions or name == "rows"
    }
    return _with_first_type(tables)


def _looked_up(model: ModelView, rule: Rule, rows: range | None) -> Rows:
    """The rows of a table that a token can take."""
    table = model.tensor(rule.pattern)
    taken = table if rows is None else table[rows.start : rows.stop]
    return (taken * factor_of(rule, model.dtype(rule.pattern))).astype(np.float32)


def keyed_table(bundle: Bundle, hosted: ModelView) -> Table:
    """The keyed rows of all tokens: every device of this epoch has them, or the cloud."""
    if bundle.info.interface != EMBEDDINGS:
        rows, info = given(hosted.embedding()), bundle.info
        every = range(0, info.vocabulary, info.max_positions)
        texts = [np.arange(i, min(i + info.max_positions, info.vocabulary)) for i in every]
        order = np.concatenate([bundle.keyed_ids(ids) for ids in texts])
        return Table(rows[order].astype(np.float32), None)
    file = TensorFile.open(bundle.folder / EMBEDDING_FILE)
    return _with_first_type({name: file.floats(name) for name in file.entries})


def _with_first_type(tables: Mapping[str, Rows]) -> Table:
    """A table of rows and positions; texts of one part alone have one type throughout."""
    rows = tables["rows"]
    if "types" in tables:
        rows = rows + tables["types"][0]
    return Table(rows, tables.get("positions"))


def _residual_key(key: ModelKey, hosted: ModelView) -> Matrix:
    """M (d, D): a keyed row is the plain one times M."""
    return key.weights.matrix_of(hosted.residual)


def _answers(original: ModelView, bundle: Bundle, sample: Any) -> NDArray[Any]:
    """What the original answers, loaded when it is asked."""
    task = task_of(bundle.info.task)
    return task.original(original.load(task.auto_class), sample)


def _check_belongs(source: str, out: Path, plain: Table, keyed: Table, key: Matrix) -> None:
    """Refuses to attack one model with another's table, which would recover nothing."""
    belongs = plain.rows.shape[0] == keyed.rows.shape[0] and key.shape == (
        plain.rows.shape[1],
        keyed.rows.shape[1],
    )
    if belongs:
        ids = np.linspace(0, len(plain.rows) - 1, num=16).astype(np.int64)
        belongs = bool(
            np.allclose(plain.rows[ids] @ key, keyed.rows[ids], rtol=0.02, atol=1e-3)
        )
    if not belongs:
        raise SettingsError(
            f"{out} was not made from {source}: name the checkpoint it was made from"
        )


def _known(traffic: Traffic, table: Table) -> KnownRows | None:
    """The rows of the traffic with their plaintext, as far as the audit knows it."""
    keyed, plain, seen = [], [], set()
    starts = traffic.starts or (0,) * len(traffic.requests)
    if table.positions is not None and not traffic.starts:
        return None
    for rows, ids, start in zip(traffic.requests, traffic.token_ids, starts, strict=True):
        for i, token in enumerate(ids):
            place = start + i if table.positions is not None else 0
            if token == UNKNOWN or (token, place) in seen:
                continue
            seen.add((token, place))
            keyed.append(rows[i])
            row = table.rows[token]
            plain.append(row if table.positions is None else row + table.positions[place])
    return KnownRows(np.stack(keyed), np.stack(plain)) if keyed else None
