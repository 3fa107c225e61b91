from __future__ import annotations

import subprocess
import sys

import pytest

from services.errors import UsageError
from services.http import normalize_base_url
from services.model import Provider
from services.providers import DEFAULT_BASE_URLS, residency_hosts


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.example.com", "https://api.example.com"),
        (" https://api.example.com/ ", "https://api.example.com"),
        ("https://gate.example.com/voice/eu//", "https://gate.example.com/voice/eu"),
        ("HTTPS://api.example.com:8443", "https://api.example.com:8443"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://demo.localhost", "http://demo.localhost"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_accepted(given: str, kept: str) -> None:
    assert normalize_base_url(given) == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://",
        "https://api example.com",
        "https://api.example.com\r\nx: y",
        "https://host:notaport",
        "https://host:0",
        "https://host:99999",
        "https://host/?a=1",
        "https://host/#x",
        "http://[::1",
    ],
)
def test_refused_with_advice(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalize_base_url(url)
    assert caught.value.code == "bad_base_url"
    assert caught.value.advice


def test_plain_http_over_a_network_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        normalize_base_url("http://api.example.com/v")
    assert "key" in caught.value.message
    assert "https://api.example.com" in caught.value.advice


def test_a_password_in_the_base_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        normalize_base_url("https://user:hunter2@host")
    assert "hunter2" not in caught.value.message + caught.value.advice


def test_every_vendor_has_a_global_host() -> None:
    for provider in Provider:
        hosts = residency_hosts(provider)
        assert hosts["global"] == DEFAULT_BASE_URLS[provider]
        assert all(normalize_base_url(url) == url for url in hosts.values())
    assert set(residency_hosts(Provider.ELEVENLABS)) == {"global", "us", "eu", "in", "sg"}


def test_the_light_names_load_no_client() -> None:
    code = (
        "import sys, services.http as h, services.providers as p; p.residency_hosts; h.digest('{}'); h.Wire\n"
        "print([m for m in ('httpx', 'stamina', 'tenacity', 'asyncio', 'ssl') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
