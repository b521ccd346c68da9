"""The error tree: one class a problem type, the same on both sides of the wire."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import triparty.common
from triparty.common import errors
from triparty.common.errors import (
    BlobMissingError,
    CloudError,
    LimitError,
    NotFoundError,
    TripartyError,
    by_slug,
    from_problem,
    to_problem,
)


def classes(root: type[TripartyError] = TripartyError) -> Iterator[type[TripartyError]]:
    yield root
    for child in root.__subclasses__():
        yield from classes(child)


ALL = sorted(classes(), key=lambda kind: kind.__name__)
each = pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)


def drawn() -> list[tuple[str, str]]:
    """(class, parent) of each line of the tree in the module's docstring."""
    tree = (errors.__doc__ or "").split("```")[1].strip().splitlines()
    path = [tree[0]]
    found = [(tree[0], "Exception")]
    for line in tree[1:]:
        match = re.match(r"([│ ]*)[├└]── (\w+)", line)
        assert match, line
        depth = len(match[1]) // 4 + 1
        found.append((match[2], path[depth - 1]))
        path[depth:] = [match[2]]
    return found


def test_the_drawn_tree_is_the_classes() -> None:
    made = {(kind.__name__, kind.__bases__[0].__name__) for kind in ALL}
    assert sorted(drawn()) == sorted(made)
    assert len(made) > 30


def test_no_other_module_adds_a_class() -> None:
    for module in pkgutil.iter_modules(triparty.common.__path__, "triparty.common."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {kind.__module__ for kind in classes()} == {errors.__name__}


def test_each_class_has_its_own_slug() -> None:
    slugs = [kind.slug for kind in ALL]
    assert len(set(slugs)) == len(slugs)
    assert by_slug() == {kind.slug: kind for kind in ALL}
    for kind in ALL:
        assert "slug" in vars(kind), f"{kind.__name__} inherits its slug"


@each
def test_each_class_has_a_status_and_a_title(kind: type[TripartyError]) -> None:
    assert 400 <= kind.status <= 599
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug)
    problem = to_problem(kind("what is wrong"))
    assert problem["title"]
    assert not problem["title"].endswith(".")
    assert (problem["status"], problem["detail"]) == (kind.status, "what is wrong")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
OWN = ("type", "title", "status", "detail", "instance")
EXTRA = st.dictionaries(st.text().filter(lambda name: name not in OWN), JSON, max_size=3)


@given(kind=st.sampled_from(ALL), message=st.text(min_size=1), extra=EXTRA)
def test_an_error_comes_back_from_the_wire(
    kind: type[TripartyError], message: str, extra: dict[str, object]
) -> None:
    sent = json.loads(json.dumps(to_problem(kind(message, **extra))))
    error = from_problem(kind.status, sent)
    assert type(error) is kind
    assert (error.message, error.extra) == (message, extra)
    assert str(error) == message


def test_no_extra_member_takes_the_place_of_the_problems_own() -> None:
    error = NotFoundError(
        "gone",
        **{"type": "urn:triparty:problem:auth", "status": 200, "title": "fine", "detail": "x"},
    )
    assert to_problem(error) == {
        "type": "urn:triparty:problem:not-found",
        "status": 404,
        "title": "No such thing, or not for this principal: the two look alike on purpose",
        "detail": "gone",
    }


@pytest.mark.parametrize("hostile", ["self", "message"])
def test_a_member_named_as_the_constructors_own_is_no_crash(hostile: str) -> None:
    problem = {"type": "urn:triparty:problem:limit", "detail": "wait", hostile: "x"}
    error = from_problem(429, problem)
    assert type(error) is LimitError
    assert error.message == "wait"


@pytest.mark.parametrize(
    "problem",
    [
        {},
        {"type": None},
        {"type": 7},
        {"type": "about:blank"},
        {"type": "urn:triparty:problem:nobody-knows"},
        {"type": "urn:triparty:problem:"},
        {"type": ["urn:triparty:problem:auth"]},
    ],
)
def test_an_unknown_type_is_the_clouds_failure(problem: dict[str, object]) -> None:
    error = from_problem(418, problem)
    assert type(error) is CloudError
    assert error.message == "the cloud answered with status 418"
    assert from_problem(418, {**problem, "detail": "teapot"}).message == "teapot"


def test_what_a_caller_acts_on_travels_along() -> None:
    missing = BlobMissingError("2 blobs", missing=["a", "b"])
    assert from_problem(409, to_problem(missing)).extra == {"missing": ["a", "b"]}
