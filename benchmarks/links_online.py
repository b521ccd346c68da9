"""Online adaptation: which inputs are asked about, at the same number of labels (fig. 5.6).

The clips one after another are the stream: the scene changes twice, and with it what FastestDet
says of what YOLOX-nano counts. `offline` learns from as many labels, the first of the stream.
Inputs that were asked about are not judged.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from benchmarks.links_data import SPECS, frames
from benchmarks.links_quality import percent
from triparty.common.links.asking import Asking, Rule
from triparty.common.links.design import default_design
from triparty.common.links.metrics import agreement
from triparty.common.links.online import OnlineLink
from triparty.common.links.recipe import Recipe
from triparty.common.links.training import fit_link

SOURCE, TARGET = "tags", "count"
PERIOD = 100
LABELS = {"1%": 1, "5%": 5, "10%": 10}
LEAST_KEPT = 20  # answers that a link is trained on again
FIRST = 10  # rows that every way begins with


@lru_cache(maxsize=16)
def followed(rule: Rule, labels: int, seed: int) -> float:
    """Accuracy on the stream of a link that asks so often in a period."""
    recorded = frames().recorded
    source, said = recorded.outputs[SOURCE], recorded.outputs[TARGET]
    recipe = Recipe(epochs=40, folds=2, seed=seed)
    design = default_design(SPECS[SOURCE], SPECS[TARGET])
    first = fit_link(design, source[:FIRST], said[:FIRST], recipe).link
    online = OnlineLink(
        first, Asking(PERIOD, labels, rule), recipe, memory=max(LEAST_KEPT, 4 * labels)
    )
    right = []
    for row in range(FIRST, len(source)):
        one, answer = source[row : row + 1], said[row : row + 1]
        if online.wants(one):
            online.learn(one, answer)
            continue
        right.append(float(agreement(SPECS[TARGET], online.predict(one), answer)[0]))
    return float(np.mean(right))


def offline(labels: int, seed: int) -> float:
    """The same of a link that learns as many labels at the beginning, and then no more."""
    recorded = frames().recorded
    source, said = recorded.outputs[SOURCE], recorded.outputs[TARGET]
    count = FIRST + labels * (len(source) - FIRST) // PERIOD
    design = default_design(SPECS[SOURCE], SPECS[TARGET])
    link = fit_link(design, source[:count], said[:count], Recipe(seed=seed)).link
    told = link.predict(source[count:])
    return float(agreement(SPECS[TARGET], told, said[count:]).mean())


ONLINE = tuple(
    percent(
        f"tags to count on the stream, {way}, {share} labels",
        (lambda seed, n=number: offline(n, seed))  # type: ignore[misc]
        if way == "offline"
        else (lambda seed, n=number, way=way: followed(way, n, seed)),  # type: ignore[misc]
        reference=f"thesis fig. 5.6, at 1 %: {figure}",
    )
    for share, number in LABELS.items()
    for way, figure in (
        ("offline", 6.3),
        ("periodic", 70.2),
        ("uncertainty", 73.5),
        ("predicted-loss", 74.7),
    )
)
