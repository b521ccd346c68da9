"""The proxy before a cloud, as the environment names it."""

from __future__ import annotations

import pytest

from triparty.common.proxies import proxy_of


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "https://cloud.example", None),
        ({"HTTPS_PROXY": "http://p:3128"}, "https://cloud.example:8443", "http://p:3128"),
        ({"https_proxy": "p:3128"}, "https://cloud.example", "http://p:3128"),
        ({"HTTPS_PROXY": "http://p:3128"}, "http://cloud.example", None),
        ({"HTTP_PROXY": "http://p:3128"}, "http://cloud.example", "http://p:3128"),
        ({"ALL_PROXY": "http://p:3128"}, "https://cloud.example", "http://p:3128"),
        (
            {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "cloud.example"},
            "https://cloud.example:8443",
            None,
        ),
        (
            {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "cloud.example"},
            "https://other.example",
            "http://p:3128",
        ),
        ({"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, "https://cloud.example", None),
    ],
)
def test_the_proxy_is_that_of_the_environment(
    environment: dict[str, str], url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy
