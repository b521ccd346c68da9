"""A second instance of a protected model, for the attacks that compare two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from triparty.developer.audit.attack import Attack
from triparty.developer.audit.scene import Scene
from triparty.developer.protect import protect
from triparty.developer.protect.modelkey import ModelKey

MAX_COMPILED_BYTES = 2_000_000_000


def wanting(scene: Scene, attacks: Sequence[Attack]) -> list[Attack]:
    """The attacks that lack a second instance and nothing else."""
    pretended = replace(scene.knowledge, other=scene.knowledge.hosted)
    return [
        attack
        for attack in attacks
        if attack.lacks(scene.knowledge.at(attack.level)) is not None
        and attack.lacks(pretended.at(attack.level)) is None
    ]


def compiled_again(source: str, out: Path, target: Path) -> bool:
    """Protects the same original once more, with the same choices and fresh keys.

    Args:
        source: the original.
        out: what `protect` wrote.
        target: a folder to be made.

    Returns:
        False, and nothing is written, where the original is larger than an audit may
        compile by the way.
    """
    key = ModelKey.open(out, source)
    if key.decided.size_bytes > MAX_COMPILED_BYTES:
        return False
    protect(source, target, choices=key.secret.choices)
    return True
