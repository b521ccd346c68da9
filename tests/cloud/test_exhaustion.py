"""A tenant at its limits leaves the others theirs."""

from __future__ import annotations

from tests.cloud.conftest import sha


def refused(answer, slug) -> bool:
    is_limit = (answer.status_code, slug(answer)) == (429, "limit")
    return is_limit and int(answer.headers["Retry-After"]) >= 1


def test_requests(make_cloud, slug):
    cloud = make_cloud(requests_per_s_per_principal=0.2, requests_per_s_per_developer=0.3)
    greedy, other = cloud.developer(), cloud.developer("other")
    answers = [greedy.request("GET", "/v1/devices") for _ in range(4)]
    assert answers[0].status_code == 200
    assert refused(answers[-1], slug)
    assert other.request("GET", "/v1/devices").status_code == 200
    assert cloud.request("GET", "/healthz").status_code == 200


def test_devices_of_one_developer_share_its_requests(make_cloud, slug):
    cloud = make_cloud(requests_per_s_per_principal=1, requests_per_s_per_developer=0.5)
    greedy, other = cloud.developer(), cloud.developer("other")
    device = greedy.device()
    answers = [device.request("GET", "/v1/artifacts") for _ in range(6)]
    assert refused(answers[-1], slug)
    assert refused(greedy.request("GET", "/v1/devices"), slug)
    assert other.request("GET", "/v1/devices").status_code == 200


def test_everything_that_is_kept(make_cloud, slug):
    cloud = make_cloud(max_artifacts=1, max_devices=1, max_invites=2, max_store_bytes=100)
    greedy, other = cloud.developer(), cloud.developer("other")
    for developer in (greedy, other):  # the one fills up, then the other has as much
        device = developer.device()
        assert developer.publish({"config.json": b"{}"}).status_code == 201
        again = developer.publish({"config.json": b"{}"}, version=2)
        assert refused(again, slug)
        assert refused(type(device)(developer, "b").enrol(developer.invite()), slug)
        developer.invite()
        body = {"role": "device", "login_hash": "0" * 64, "expires_in_s": 60, "label": "x"}
        assert refused(developer.request("POST", "/v1/invites", json=body), slug)
        announced = {"Content-Range": "bytes 0-0/90"}  # never sent, but it takes room
        path = f"/v1/blobs/{sha(developer.id.encode())}"
        first = developer.request("PUT", path, content=b"a", headers=announced)
        assert first.status_code == 308
        assert refused(developer.put(b"b" * 20), slug)


def test_guesses_at_invites_cost_their_own_address(make_cloud, slug):
    cloud = make_cloud(enrolments_per_minute=2)
    developer = cloud.developer()
    body = developer.enrolment(cloud.invite("developer", cloud.operator)) | {"proof": "A" * 86}
    answers = [cloud.request("POST", "/v1/enroll", json=body) for _ in range(3)]
    assert refused(answers[-1], slug)
    assert developer.request("GET", "/v1/devices").status_code == 200
