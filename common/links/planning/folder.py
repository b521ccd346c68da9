"""A plan as a folder with `plan.json`: a canonical document, fractions as decimal text.

It names the models and links by the names and versions under which they are published; version
0 is of what was not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, get_args

from triparty.common.documents import Members, check_name, read_document_file, write_document
from triparty.common.errors import ManifestError, SettingsError
from triparty.common.files import make_private_folder, write_private
from triparty.common.links.planning.costs import Budget, Cost
from triparty.common.links.planning.plan import Method, Plan

PLAN_FILE: Final = "plan.json"
LIMIT_BYTES: Final = 1 << 20
_DOCUMENT: Final = "triparty.plan"
_MEMBERS: Final = (
    "models",
    "active",
    "predicted",
    "quality",
    "expected_accuracy",
    "cost",
    "budget",
    "method",
    "links",
)
_COST: Final = ("memory_mib", "latency_ms", "load_s")


@dataclass(frozen=True)
class PlanFolder:
    """A plan, with what it was made from.

    Attributes:
        plan: which models run.
        costs: of each of its models.
        models: versions of the models, by name.
        links: versions of the links, by target; of all that there are, also to models that
            run, for choosing anew.
    """

    plan: Plan
    costs: Mapping[str, Cost]
    models: Mapping[str, int] = field(default_factory=dict)
    links: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what does not fit together.

        Raises:
            SettingsError: a model without a cost, a name twice, or one that cannot be
                predicted because there is no link to it.
        """
        names = self.plan.models
        if len(set(names)) < len(names) or set(names) != set(self.costs):
            raise SettingsError("a plan names each of its models once, with its cost")
        if unknown := set(self.links) - set(names):
            raise SettingsError(f"a plan has links to '{min(unknown)}', which it does not name")
        for name, sources in self.plan.predicted.items():
            if set(sources) - set(self.plan.active):
                raise SettingsError(f"'{name}' is predicted from models that do not run")
            if sources and name not in self.links:
                raise SettingsError(f"'{name}' is predicted, and there are no links to it")
        object.__setattr__(self, "models", {name: self.models.get(name, 0) for name in names})

    @property
    def budget(self) -> Budget:
        """That the plan keeps."""
        return Budget(**self.plan.budget)

    def save(self, folder: Path) -> None:
        """Writes the folder, in the place of a plan that is there; for its owner alone.

        Raises:
            SettingsError: something else is there.
        """
        if folder.exists() and not is_plan(folder):
            raise SettingsError(f"{folder} exists and is no plan: name another folder")
        make_private_folder(folder)
        write_private(folder / PLAN_FILE, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The document; law: what `open` reads of it is this."""
        plan = self.plan
        return write_document(
            _DOCUMENT,
            {
                "models": [
                    {
                        "name": name,
                        "version": self.models[name],
                        **{part: _decimal(getattr(self.costs[name], part)) for part in _COST},
                    }
                    for name in plan.models
                ],
                "active": list(plan.active),
                "predicted": {name: list(each) for name, each in plan.predicted.items()},
                "quality": {name: _decimal(one) for name, one in plan.quality.items()},
                "expected_accuracy": _decimal(plan.expected_accuracy),
                "cost": {name: _decimal(one) for name, one in plan.cost.items()},
                "budget": {name: _decimal(one) for name, one in plan.budget.items()},
                "method": plan.method,
                "links": [{"name": name, "version": n} for name, n in self.links.items()],
            },
        )

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Reads a plan; everything in it is checked.

        Raises:
            ManifestError: `plan.json` is absent, not canonical, or says what cannot be.
            FormatVersionError: made by a newer triparty.
        """
        members = read_plan_document(folder)
        try:
            models = [_model(item) for item in members.items("models")]
            plan = Plan(
                active=tuple(_names(members.items("active"))),
                predicted={
                    check_name(name, what="model"): tuple(_names(sources))
                    for name, sources in members.mapping("predicted").items()
                },
                quality=_fractions(members, "quality"),
                expected_accuracy=members.fraction("expected_accuracy"),
                cost=_fractions(members, "cost"),
                budget=_fractions(members, "budget"),
                method=_method(members.text("method")),
            )
            made = cls(
                plan,
                {name: cost for name, _, cost in models},
                {name: version for name, version, _ in models},
                dict(_link(item) for item in members.items("links")),
            )
            made.budget  # noqa: B018 - refuses another one
        except (SettingsError, TypeError) as error:
            raise ManifestError(f"{folder / PLAN_FILE}: {error}") from error
        return made


def is_plan(folder: Path) -> bool:
    """Whether a folder says that it is a plan."""
    return (folder / PLAN_FILE).is_file()


def read_plan_document(folder: Path) -> Members:
    """The members of a plan's document, of which nothing but their names is checked.

    Raises:
        ManifestError: it cannot be read, or is no plan's.
        FormatVersionError: made by a newer triparty.
    """
    return read_document_file(folder / PLAN_FILE, _DOCUMENT, _MEMBERS)


def _decimal(value: float) -> str:
    return repr(float(value))


def _model(item: object) -> tuple[str, int, Cost]:
    members = Members(item, where="plan: a model", names=("name", "version", *_COST))
    cost = Cost(**{part: members.fraction(part) for part in _COST})
    return check_name(members.text("name"), what="model"), members.integer("version"), cost


def _link(item: object) -> tuple[str, int]:
    members = Members(item, where="plan: a link", names=("name", "version"))
    return check_name(members.text("name"), what="link"), members.integer("version")


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ManifestError("plan: expected a list of names")
    return [check_name(one, what="model") for one in value]


def _fractions(members: Members, name: str) -> dict[str, float]:
    value = members.mapping(name)
    each = Members(value, where=f"plan: '{name}'", names=value.keys())
    return {key: each.fraction(key) for key in value}


def _method(text: str) -> Method:
    if text not in get_args(Method):
        raise ManifestError(f"plan: unknown method {text!r:.40}")
    return text  # type: ignore[return-value]
