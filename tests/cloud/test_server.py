"""A real cloud on a real socket, with TLS, as the command starts it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from triparty.cloud.server import check_exposure, find_running
from triparty.cloud.settings import load_settings
from triparty.cloud.tls import make_self_signed, read_pin
from triparty.common.enrolment import Enrolment, prove_enrolment
from triparty.common.errors import SettingsError, StateError, UnreachableError
from triparty.common.invites import Invite
from triparty.common.signing import PrivateKey, to_base64url
from triparty.common.trust import Delegation, PublishingKey, sign_delegation

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TRIPARTY = [sys.executable, "-m", "triparty.common", "cloud"]


def run(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TRIPARTY, *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=120,
        check=False,
    )


def run_json(*args: object, **env: str) -> dict:
    done = run(*args, "--json", **env)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@contextlib.contextmanager
def serving(data: Path, *args: str):
    with (data / "log").open("w") as log:
        command = [*TRIPARTY, "serve", "--data", str(data), "--json", *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = process.stdout.readline()
        assert line, (data / "log").read_text()
        yield process, json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def pinned(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)
    return context


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    data = tmp_path_factory.mktemp("cloud") / "data"
    made = run_json("init", "--data", data, "--self-signed", "--port", 0)
    with serving(data) as (process, ready):
        yield data, made, ready, process


def test_ready_line_means_accepting(running):
    data, made, ready, _ = running
    assert ready["url"].startswith("https://127.0.0.1:")
    assert ready["pin"] == made["pin"]
    with httpx.Client(verify=pinned(data / "tls" / "cert.pem")) as client:
        assert client.get(ready["url"] + "/readyz").json() == {"status": "ready"}


def test_the_certificate_is_the_pinned_one_and_no_other(running, tmp_path):
    data, made, ready, _ = running
    der = ssl.PEM_cert_to_DER_cert((data / "tls" / "cert.pem").read_text())
    assert hashlib.sha256(der).hexdigest() == made["pin"]
    other = tmp_path / "other.pem"
    other.write_bytes(make_self_signed([], now=NOW)[0])
    for context in (pinned(other), ssl.create_default_context()):
        with httpx.Client(verify=context) as client, pytest.raises(httpx.ConnectError):
            client.get(ready["url"] + "/readyz")


def test_the_name_is_in_the_certificate(running):
    """Checked by name too, as other clients do."""
    data, _, ready, _ = running
    context = pinned(data / "tls" / "cert.pem")
    context.check_hostname = True
    with httpx.Client(verify=context) as client:
        assert client.get(ready["url"] + "/healthz").status_code == 200
        port = httpx.URL(ready["url"]).port
        assert client.get(f"https://localhost:{port}/healthz").status_code == 200


def test_status_and_invite_beside_the_data(running):
    data, made, ready, _ = running
    counts = run_json("status", "--data", data)
    assert {"version", "models", "sessions", "jobs", "developers", "devices"} <= set(counts)
    assert counts["state"] == "ready"
    lines = run("status", "--data", data).stdout.splitlines()
    assert 0 < len(lines) < 24  # a screen
    assert all(0 < len(line) <= 80 and "?" not in line for line in lines)
    principals = f"{counts['developers']} developers, {counts['devices']} devices"
    assert any(principals in line for line in lines)
    made_invite = run_json("invite", "--data", data, "--days", 1)
    invite = Invite.from_code(made_invite["invite"])
    assert (invite.url, invite.pin) == (ready["url"], made["pin"])
    assert (invite.role, invite.root) == ("developer", None)
    plain = run("invite", "--data", data)
    (code,) = plain.stdout.splitlines()
    assert Invite.from_code(code).login_hash != invite.login_hash


def test_developers_are_listed_and_revoked(running):
    data, _, ready, _ = running
    token = enrolled(data, ready, name="leaving")
    listed = run_json("developers", "--data", data)["developers"]
    (leaving,) = (developer for developer in listed if developer["name"] == "leaving")
    assert not leaving["revoked"]
    assert leaving["id"] in run("developers", "--data", data).stdout
    nobody = run("revoke", "stranger", "--data", data)
    assert nobody.returncode == 2
    assert "cloud developers" in nobody.stderr
    assert run_json("revoke", leaving["id"], "--data", data) == {
        "developer": leaving["id"],
        "devices": 0,
    }
    with httpx.Client(verify=pinned(data / "tls" / "cert.pem")) as client:
        headers = {"Authorization": f"Bearer {token}"}
        refused = client.get(ready["url"] + "/v1/devices", headers=headers)
    assert refused.json()["type"] == "urn:triparty:problem:token-revoked"


def test_status_from_elsewhere(running):
    _, made, ready, _ = running
    token = {"TRIPARTY_CLOUD_OPERATOR_TOKEN": made["token"]}
    where = ["--url", ready["url"], "--pin", made["pin"]]
    assert run_json("status", *where, **token)["jobs"] == 0
    assert run_json("invite", *where, **token)["pin"] == made["pin"]
    wrong = run("status", "--url", ready["url"], "--pin", "0" * 64, **token)
    assert wrong.returncode == 1
    assert "certificate" in wrong.stderr
    assert run("status", *where).returncode == 2


def test_an_upload_killed_half_way_goes_on(running):
    data, _, ready, _ = running
    content = os.urandom(3 << 20)
    token = enrolled(data, ready)
    name = hashlib.sha256(content).hexdigest()
    url = httpx.URL(ready["url"])
    head = (
        f"PUT /v1/blobs/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Range: bytes 0-{len(content) - 1}/{len(content)}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    context = pinned(data / "tls" / "cert.pem")
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(verify=context, base_url=ready["url"], headers=headers) as client:
        with socket.create_connection((url.host, url.port)) as plain:
            secure = context.wrap_socket(plain)
            secure.sendall(head.encode() + content[: 2 << 20])
            held = wait_for_some(client, name)
            secure.close()  # without a goodbye
        assert client.get(f"/v1/blobs/{name}").status_code == 404
        for _ in range(5):  # the cut may still be under way: 409 says where to go on
            rest = {"Content-Range": f"bytes {held}-{len(content) - 1}/{len(content)}"}
            done = client.put(f"/v1/blobs/{name}", content=content[held:], headers=rest)
            if done.status_code != 409:
                break
            held = int(done.headers["Range"].rpartition("-")[2]) + 1
        assert done.status_code == 201
        assert 0 < held < len(content)
        assert client.get(f"/v1/blobs/{name}").content == content


def wait_for_some(client: httpx.Client, name: str) -> int:
    """How many bytes of an upload under way are held."""
    for _ in range(200):
        found = client.head(f"/v1/blobs/{name}")
        if found.status_code == 308 and "Range" in found.headers:
            return int(found.headers["Range"].rpartition("-")[2]) + 1
        time.sleep(0.05)
    raise TimeoutError(found)


def enrolled(data: Path, ready: dict, *, name: str = "acme") -> str:
    """The token of a new developer, who enrols over the real socket."""
    invite = Invite.from_code(run_json("invite", "--data", data)["invite"])
    root, publishing = PrivateKey.generate(), PrivateKey.generate()
    now = datetime.now(UTC)
    key = PublishingKey(publishing.public, now + timedelta(days=1))
    signed = sign_delegation(Delegation(root.public, (key,), 1, now), root)
    enrolment = Enrolment(invite.url, "developer", invite.login_hash, root.public)
    body = {
        "role": "developer",
        "login": to_base64url(invite.login),
        "name": name,
        "identity": root.public.to_text(),
        "cloud": invite.url,
        "proof": to_base64url(prove_enrolment(enrolment, root)),
        "delegation": to_base64url(signed.payload),
        "delegation_signature": to_base64url(signed.signature),
    }
    context = pinned(data / "tls" / "cert.pem")
    with httpx.Client(verify=context, base_url=ready["url"]) as client:
        return client.post("/v1/enroll", json=body).json()["token"]


def test_what_the_cloud_keeps_is_looked_after_while_it_runs(running, tmp_path):
    data, _, ready, _ = running
    token = enrolled(data, ready)
    assert run_json("check", "--data", data, "--all") == {"damage": []}
    assert run_json("clean", "--data", data) == {"uploads": 0, "blobs": 0, "bytes": 0}
    done = run_json("backup", tmp_path / "backups", "--data", data)
    assert (done["copied"], done["damaged"]) == (0, [])
    again = tmp_path / "again"
    assert run_json("restore", tmp_path / "backups", "--data", again)["data"] == str(again)
    assert run("restore", tmp_path / "backups", "--data", again).returncode == 1
    with serving(again, "--port", "0") as (_, restored):
        assert restored["pin"] == ready["pin"]
        context = pinned(again / "tls" / "cert.pem")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(verify=context, headers=headers) as client:
            assert client.get(restored["url"] + "/v1/devices").json() == {"devices": []}


def test_a_damaged_cloud_is_checked(tmp_path):
    data = tmp_path / "data"
    run_json("init", "--data", data)
    file = data / "cloud.db"
    content = file.read_bytes()
    file.write_bytes(content[:4096] + bytes(len(content) - 4096))
    found = run("check", "--data", data)
    assert found.returncode == 1
    assert "restore" in found.stderr
    missing = run("check", "--data", tmp_path)
    assert "cloud init" in missing.stderr


def test_one_server_a_folder(running):
    data = running[0]
    second = run("serve", "--data", data)
    assert second.returncode == 1
    assert "another" in second.stderr


def test_sigterm_ends_well_and_the_log_has_no_secret(tmp_path):
    data = tmp_path / "data"
    made = run_json("init", "--data", data, "--port", 0)
    assert made["pin"] is None
    with serving(data) as (process, ready):
        assert ready == {"url": ready["url"], "pin": None}
        headers = {"Authorization": f"Bearer {made['token']}"}
        assert httpx.get(ready["url"] + "/v1/status", headers=headers).status_code == 200
        code = run_json("invite", "--data", data)["invite"]
    assert process.returncode == 0
    assert not (data / "serving.json").exists()
    log = (data / "log").read_text()
    assert all(json.loads(line)["event"] for line in log.splitlines())
    for secret in ("tpt_", code, Invite.from_code(code).login_hash):
        assert secret not in log
    down = run("status", "--data", data)
    assert down.returncode == 1
    assert "not running" in down.stderr


@pytest.fixture
def cli(make_cloud):
    """`triparty cloud` in this process, on an initialised folder; returns what it raised."""
    with warnings.catch_warnings():  # typer's import uses a name that click deprecates
        warnings.simplefilter("ignore", DeprecationWarning)
        from typer.testing import CliRunner

        from triparty.cloud.cli import app
    data = make_cloud().data
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def invoke(verb: str, *args: object) -> BaseException | None:
        words = [verb, "--data", str(data), *map(str, args)]
        result = CliRunner().invoke(app, words)
        assert result.stdout == ""
        return result.exception

    yield invoke
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("alembic").setLevel(logging.NOTSET)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--host", "0.0.0.0"], "--insecure-no-tls"),
        (["--host", "192.0.2.7"], "--insecure-no-tls"),
        (["--engine", "gpu"], "engine"),
        (["--cert", "x"], "--key"),
        (["--cert", "/dev/null", "--key", "/dev/null"], "certificate"),
        (["--port", "0", "--blobs", "ftp://x"], "ftp"),
    ],
)
def test_serve_refuses(cli, args, says):
    refused = cli("serve", *args)
    assert isinstance(refused, SettingsError)
    assert says in refused.message


def test_a_busy_port(cli):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        refused = cli("serve", "--port", busy.getsockname()[1])
    assert isinstance(refused, StateError)
    assert "cannot listen" in refused.message


def test_init_and_offline_commands_refuse(cli):
    assert isinstance(cli("init"), StateError)
    assert isinstance(cli("status"), UnreachableError)
    assert isinstance(cli("invite"), UnreachableError)


def test_what_a_killed_server_left_is_not_believed(tmp_path):
    data = tmp_path / "data"
    run_json("init", "--data", data, "--port", 0)
    with serving(data) as (process, _):
        assert find_running(data).url.startswith("http://127.0.0.1:")
        process.kill()
        process.wait(60)
        assert (data / "serving.json").exists()
        assert find_running(data) is None


def test_exposure(make_cloud, caplog):
    data = make_cloud().data
    check_exposure(load_settings(data), allow_insecure=False)
    everywhere = load_settings(data, host="0.0.0.0")
    with pytest.raises(SettingsError):
        check_exposure(everywhere, allow_insecure=False)
    check_exposure(everywhere, allow_insecure=True)
    assert "can read tokens" in caplog.text


def test_only_self_signed_certificates_are_pinned(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_bytes(make_self_signed(["cloud.example"], now=NOW)[0])
    assert len(read_pin(file)) == 64
    file.write_bytes(b"nothing")
    with pytest.raises(SettingsError):
        read_pin(file)
