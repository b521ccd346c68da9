"""The compiler: re-keys a model by its family's symmetry plan."""

from triparty.developer.protect.choices import Choices, Interface, Norms
from triparty.developer.protect.compiler import protect
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.spaces import Scheme
from triparty.developer.protect.survey import Survey, survey

__all__ = [
    "FAMILIES",
    "Choices",
    "Interface",
    "Norms",
    "Scheme",
    "Survey",
    "protect",
    "survey",
]
