"""Requests drawn from the OpenAPI document: every role, no 500, every answer as declared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from live_cloud import Developer, LiveCloud, running_cloud
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from triparty.common.access import Access
from triparty.common.errors import PROBLEM_PREFIX, by_slug


@schemathesis.serializer("application/vnd.triparty.frame")
def frame_bytes(_: Any, value: Any) -> bytes:
    """Any bytes: what a frame is, other tests know."""
    return value if isinstance(value, bytes) else str(value).encode()


REFUSED = {"nobody": 401, "operator": 403, "developer": 404, "device": 404}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FAST, SLOW = 3, 150


class Fuzzed:
    """A cloud with one principal of each role, and its own description."""

    def __init__(self, cloud: LiveCloud, folder: Path) -> None:
        self.cloud = cloud
        developer = Developer.new(cloud, folder)
        developer.enroll()
        developer.device("phone")
        access = Access.load(next((folder / "devices").iterdir()), role="device")
        self.tokens = {
            "operator": cloud.operator,
            "developer": developer.home.access().token,
            "device": access.token,
        }
        document = requests.get(cloud.url + "/openapi.json", timeout=30).json()
        self.schema = schemathesis.openapi.from_dict(document)
        self.statuses: set[int] = set()

    def operations(self) -> list[Any]:
        return [found.ok() for found in self.schema.get_all_operations()]

    def check(self, case: Any, role: str) -> None:
        headers = {}
        if token := self.tokens.get(role):
            headers["Authorization"] = f"Bearer {token}"
        else:
            case.headers.pop("Authorization", None)
        answer = case.call(base_url=self.cloud.url, headers=headers)
        case.validate_response(answer, checks=CHECKS)
        self.statuses.add(answer.status_code)
        if answer.status_code >= 400 and case.method != "HEAD":
            assert answer.headers["content-type"] == ["application/problem+json"]
            problem = answer.json()
            assert problem["type"].removeprefix(PROBLEM_PREFIX) in by_slug()
            assert problem["status"] == answer.status_code
        if case.path == "/v1/tokens/rotate" and answer.status_code == 200:
            self.tokens[role] = answer.json()["token"]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    with running_cloud(folder / "cloud") as cloud:
        yield Fuzzed(cloud, folder)


def fuzz(fuzzed: Fuzzed, role: str, examples: int) -> None:
    fuzzed.statuses.clear()
    for operation in fuzzed.operations():

        @seed(20260102)
        @settings(
            max_examples=examples,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def try_out(case: Any) -> None:
            fuzzed.check(case, role)

        try_out()
    assert {200, REFUSED[role]} <= fuzzed.statuses


@pytest.mark.parametrize("role", REFUSED)
def test_some_requests_of_each_route(fuzzed: Fuzzed, role: str) -> None:
    fuzz(fuzzed, role, FAST)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("role", REFUSED)
def test_many_requests_of_each_route(fuzzed: Fuzzed, role: str) -> None:
    fuzz(fuzzed, role, SLOW)
