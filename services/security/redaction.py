"""Masking of secrets in text: the ones the program has held, and everything that looks like one."""

from __future__ import annotations

import json
import logging
import re
import threading
import traceback
from base64 import b64encode
from urllib.parse import quote, quote_plus

MASK = "****"
SHORTEST = 6
"""Shorter values are not remembered: masking every "abc" would make the log unreadable."""

# Every repetition that something must follow is bounded: masking a hostile line takes linear time.
_VALUE = r"""[^\s"',;&)}\]]+"""
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?i)\b(bearer)(\s+)[a-z0-9._~+/=-]{6,}"), r"\1\2" + MASK),
    (re.compile(r"(?i)\b(basic)(\s+)(?=[a-z]{0,200}[0-9+/=])[a-z0-9+/=]{6,}"), r"\1\2" + MASK),
    # Headers, assignments and JSON members, also as the pairs of a printed header list.
    (
        re.compile(
            r"(?i)((?:xi-api-key|x-api-key|api[_-]?key|authorization|passphrase|password)"
            rf"""["']?\s*[:=,]\s*(?:b?["'])?)(?!(?:bearer|basic)\s){_VALUE}"""
        ),
        r"\1" + MASK,
    ),
    (
        re.compile(r"(?i)([?&](?:access_|conversation_)?(?:token|signature|key|secret)=)[^&\s\"'#]+"),
        r"\1" + MASK,
    ),
    # A database password may hold slashes and at signs: up to the last one before the next space.
    (
        re.compile(
            r"(?i)\b((?:postgres(?:ql)?|mysql|redis|amqp)[a-z0-9+]*://[^\s:/@]{0,128}:)[^\s\"']{1,256}@"
        ),
        rf"\1{MASK}@",
    ),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{1,20}://[^\s:/@]{0,128}:)[^\s/@\"']{1,256}@"), rf"\1{MASK}@"),
    # Vendor keys. A digit is asked for so that names such as key_rotation stay readable.
    (re.compile(r"\b(key_|sk_)(?=[A-Za-z_]{0,40}[0-9])[A-Za-z0-9_]{8,}"), r"\1" + MASK),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{8,}"), "sk-" + MASK),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), MASK),
)

_lock = threading.Lock()
_remembered: set[str] = set()
_held: re.Pattern[str] | None = None


def secrets_known() -> int:
    """How many values are masked so far: it only grows, and what was masked before it grew may lack one."""
    return len(_remembered)


def remember_secret(value: str) -> None:
    """Mask this value from now on, wherever `redact` is applied; also its usual encodings."""
    global _held
    value = value.strip()
    if len(value) < SHORTEST:
        return
    with _lock:
        if value in _remembered:
            return
        _remembered.update(_spellings(value))
        longest_first = sorted(_remembered, key=len, reverse=True)
        _held = re.compile("|".join(map(re.escape, longest_first)))


def _spellings(value: str) -> set[str]:
    raw = value.encode("utf-8", "surrogatepass")
    return {
        value,
        quote(raw, safe=""),
        quote_plus(raw),
        json.dumps(value)[1:-1],
        repr(value)[1:-1],
        b64encode(raw).decode("ascii").rstrip("="),
    }


def redact(text: str) -> str:
    """The text with every remembered secret and everything that looks like a credential masked."""
    held = _held
    if held is not None:
        text = held.sub(MASK, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class RedactingFilter(logging.Filter):
    """Masks messages, tracebacks and extra fields of every record.

    Attach it to handlers, not to a logger: a logger's filters do not see its children's records.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except Exception:  # a record whose arguments do not fit must still be logged, and masked
            message = f"{record.msg!r} {record.args!r}"
        record.msg, record.args = redact(message), None
        if record.exc_info and not record.exc_text and record.exc_info[0] is not None:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        # Without the exception no later handler can format it again unmasked.
        record.exc_info = None
        for name, value in record.__dict__.items():
            if isinstance(value, str) and name not in ("msg", "name", "levelname"):
                record.__dict__[name] = redact(value)
        return True
