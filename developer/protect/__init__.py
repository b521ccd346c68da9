"""The compiler: re-keys a model by its family's symmetry plan."""

from triparty.developer.protect.compiler import protect
from triparty.developer.protect.families import FAMILIES
from triparty.developer.protect.survey import INTERFACES, SCHEMES, Choices, Survey, survey

__all__ = ["FAMILIES", "INTERFACES", "SCHEMES", "Choices", "Survey", "protect", "survey"]
