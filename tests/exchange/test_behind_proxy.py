"""All three parties through the handbook's nginx: TLS ends there, and everything goes on."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from three_parties import Cloud, Parties, free_port, triparty

from triparty.common.access import Access

HANDBOOK = Path(__file__).parents[2] / "docs" / "operations.md"
START_LIMIT_S = 20
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None and not os.environ.get("CI"),
    reason="nginx is not installed (apt-get install nginx-light)",
)


@dataclass(frozen=True)
class Proxied:
    """Parties whose cloud is behind nginx, and the certificate that clients see."""

    parties: Parties
    certificate: Path
    port: int

    def http(self) -> httpx.Client:
        """A client of the proxy, as the device `phone`."""
        token = Access.load(self.parties.device("phone"), role="device").token
        return httpx.Client(
            base_url=self.parties.cloud.url,
            verify=ssl.create_default_context(cafile=str(self.certificate)),
            headers={"Authorization": f"Bearer {token}"},
        )


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own authority for `localhost`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def configuration(folder: Path, *, port: int, cloud_port: int) -> Path:
    """The handbook's sample with this test's ports and files, as a whole configuration."""
    (sample,) = re.findall(r"```nginx\n(.*?)```", HANDBOOK.read_text("utf-8"), re.DOTALL)
    certificate, key = write_certificate(folder)
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "127.0.0.1:8443": f"127.0.0.1:{cloud_port}",
        "/etc/letsencrypt/live/cloud.example/fullchain.pem": str(certificate),
        "/etc/letsencrypt/live/cloud.example/privkey.pem": str(key),
        "server_name cloud.example;": "server_name localhost;",
    }
    for before, after in changes.items():
        assert before in sample
        sample = sample.replace(before, after)
    temporary = "\n".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.getuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}\ndaemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}\n{sample}\n}}\n"
    )
    return file


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("proxied")
    port, cloud_port = free_port(), free_port()
    file = configuration(folder, port=port, cloud_port=cloud_port)
    (folder / "cloud").mkdir()
    cloud = Cloud(folder / "cloud", f"http://127.0.0.1:{cloud_port}")
    url = f"https://localhost:{port}"
    triparty("cloud", "init", "--data", cloud.data, "--url", url, "--port", str(cloud_port))
    with (cloud.data / "cloud.toml").open("a") as settings:
        settings.write(
            'trusted_proxies = ["127.0.0.1"]\nfailures_per_minute = 5\n'
            "max_connections_per_address = 1024\n"
        )
    assert NGINX is not None, "nginx is not installed (apt-get install nginx-light)"
    certificate = folder / "cert.pem"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))  # the public authority of this test
        proxy = subprocess.Popen([NGINX, "-p", folder, "-c", file])
        try:
            cloud.start()
            cloud.url = url
            wait_for(port)
            together = Parties(folder, cloud)
            together.enroll_developer()
            together.publish(together.protect(stories_model, "stories"), "stories")
            out = folder / "protected" / "words"
            triparty("developer", "protect", stories_model, out, "--interface", "tokens")
            together.publish(out, "words")
            together.enroll_device("phone")
            together.grant("phone")
            together.pull("phone")
            yield Proxied(together, certificate, port)
        finally:
            cloud.stop()
            proxy.terminate()
            proxy.wait(START_LIMIT_S)


def wait_for(port: int) -> None:
    end = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < end, "nginx does not listen"
            time.sleep(0.05)
        else:
            return


def test_a_device_generates_through_the_proxy(proxied: Proxied, stories_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = "Once upon a time"
    tokenizer = AutoTokenizer.from_pretrained(stories_model)
    model = AutoModelForCausalLM.from_pretrained(stories_model)
    given = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        whole = model.generate(**given, do_sample=False, max_new_tokens=20)
    expected = tokenizer.decode(whole[0, given["input_ids"].shape[1] :])
    for name in ("stories", "words"):  # rows of steps, and a streamed completion
        answer = proxied.parties.ask("phone", name, prompt, "--max-tokens", "20")
        assert answer["text"].strip() == expected.strip()


def test_an_upload_reaches_the_cloud_while_it_arrives(proxied: Proxied) -> None:
    """Nginx keeps none of it: what was sent before the connection broke is held."""
    home = proxied.parties.developer
    token = Access.load(home, role="developer").token
    data = os.urandom(4 << 20)
    path = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    head = (
        f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=str(proxied.certificate))
    with (
        socket.create_connection(("127.0.0.1", proxied.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wire,
    ):
        wire.sendall(head.encode() + data[: 2 << 20])
        held = 0
        with proxied.http() as client:
            end = time.monotonic() + START_LIMIT_S
            while not held and time.monotonic() < end:
                answer = client.head(path, headers={"Authorization": f"Bearer {token}"})
                held = int(answer.headers.get("Range", "bytes=0-0").rpartition("-")[2])
                time.sleep(0.05)
    assert held > 0
    with proxied.http() as client:
        whole = client.put(path, headers={"Authorization": f"Bearer {token}"}, content=data)
        assert whole.status_code == 201
        got = client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert got.content == data


def test_nobody_claims_another_address_through_the_proxy(proxied: Proxied) -> None:
    with proxied.http() as client:
        answers = [
            client.get(
                "/v1/artifacts",
                headers={
                    "Authorization": "Bearer tpt_" + "A" * 43,
                    "X-Forwarded-For": f"203.0.113.{last}",
                },
            )
            for last in range(8)
        ]
        assert {answer.status_code for answer in answers} == {401, 429}
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert client.get("/v1/artifacts").status_code == 200  # a known token goes on
        assert client.get("/metrics").status_code == 404
