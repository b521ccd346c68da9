"""Input filters: skip what is useless, reuse what is known (thesis chapter 3).

* `filter`: `Filter`, the public interface; `filtered`: a model behind a filter.
* `measures`, `results`: what is redundant, and what stands for it.
* `fitting`, `evaluation`, `filterability`: made with torch, judged without.
* `cache`, `session`, `artifact`: at work, with NumPy and ONNX Runtime alone.
"""

from triparty.device.filters.cache import CacheSettings
from triparty.device.filters.filter import Filter
from triparty.device.filters.fitting import Recipe, Updated
from triparty.device.filters.measures import (
    Measure,
    as_given,
    class_not_in,
    confidence_below,
    count_zero,
    fewer_words_than,
    label_changed,
    measure,
    nothing_detected,
    regression_above,
)
from triparty.device.filters.results import Skipped

__all__ = [
    "CacheSettings",
    "Filter",
    "Measure",
    "Recipe",
    "Skipped",
    "Updated",
    "as_given",
    "class_not_in",
    "confidence_below",
    "count_zero",
    "fewer_words_than",
    "label_changed",
    "measure",
    "nothing_detected",
    "regression_above",
]
