"""Vendor JSON without the secrets an operator may have put into it: headers of tools, tokens of webhooks."""

from __future__ import annotations

import json
import re

MASK = "••••••"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_COLON = re.compile(r"\s*:\s*")
# `secret_id` is a reference to a secret the vendor keeps, and worth reading; `…tokens` counts them.
_SECRET_NAME = re.compile(
    r"(api|private)[-_ ]?key|secret(?!_id)|token(?!s)|passw|passphrase|authorization|credential|cookie",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"bearer |basic |sk[-_]|key_[0-9a-f]{16}", re.IGNORECASE)


def mask_secrets(text: str) -> tuple[str, int]:
    """JSON text with every string masked that is named or looks like a secret; and how many there were.

    Everything else stays character for character: the text is scanned, not parsed and written again.
    """
    out: list[str] = []
    kept_to, masked = 0, 0
    name: re.Match[str] | None = None
    for found in _STRING.finditer(text):
        if _COLON.match(text, found.end()):
            name = found
            continue
        named = name is not None and _COLON.fullmatch(text, name.end(), found.start())
        secret = bool(named and name and _SECRET_NAME.search(name.group()))
        if found.group() != '""' and (secret or _SECRET_VALUE.match(_decoded(found.group()))):
            out += [text[kept_to : found.start()], f'"{MASK}"']
            kept_to, masked = found.end(), masked + 1
    return "".join(out) + text[kept_to:], masked


def _decoded(token: str) -> str:
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        return token
