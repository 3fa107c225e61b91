"""What a base URL may look like. Imports nothing heavy."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from services.errors import UsageError


def normalize_base_url(url: str) -> str:
    """The base URL without a trailing slash, a path prefix kept.

    Raises `UsageError` for anything that could not be a vendor's address, or that would send the key
    in clear over a network: plain http is for this machine only.
    """
    text = url.strip()
    advice = "Give an address such as https://api.example.com"
    if not text or any(ord(char) <= 32 or ord(char) == 127 for char in text):
        raise UsageError("The base URL is empty or has spaces in it", advice=advice, code="bad_base_url")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError("The base URL is not an address", advice=advice, code="bad_base_url") from None
    if parts.username is not None or parts.password is not None:
        # Not repeated in the message: what stands before the @ may be a password.
        raise UsageError(
            "The base URL carries a user name or password",
            advice="Leave out what stands before the @; the key is stored apart",
            code="bad_base_url",
        )
    if parts.scheme.lower() not in ("http", "https") or not host or port == 0:
        raise UsageError(
            f"The base URL {text[:200]!r} is not an http or https address", advice=advice, code="bad_base_url"
        )
    if parts.query or parts.fragment:
        raise UsageError(
            "The base URL ends in a query or a fragment",
            advice="Leave out everything from the ? or # on",
            code="bad_base_url",
        )
    if parts.scheme.lower() == "http" and not is_loopback(host):
        raise UsageError(
            f"The base URL of {host} is plain http, which would send the key readable by anyone on the way",
            advice=f"Use https://{host}, or plain http only for a server on this machine",
            code="bad_base_url",
        )
    return f"{parts.scheme.lower()}://{parts.netloc}{parts.path.rstrip('/')}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, by its spelling alone."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
