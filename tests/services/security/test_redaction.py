from __future__ import annotations

import io
import json
import logging
from urllib.parse import quote

import pytest

from services.security import RedactingFilter, redact, remember_secret

CANARY = "zq/remembered canary+9173"


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer CANARYabc123",
        "{'authorization': 'Bearer CANARYabc123'}",
        '{"Authorization": "CANARYabc123"}',
        "[(b'xi-api-key', b'CANARYabc123')]",
        "xi-api-key: CANARYabc123",
        "Proxy-Authorization: Basic Q0FOQVJZCANARYabc123==",
        "api_key=CANARYabc123",
        "password: b'CANARYabc123'",
        "password: bCANARYabc123",
        "key_0CANARYabc123",
        "sk_CANARYabc123",
        "sk-CANARYabc123",
        "postgresql://op:CANARYabc123@db/x",
        "postgresql+psycopg://op:p/CANARY@abc123@db/x",
        "https://user:CANARYabc123@proxy.example:8080",
        "connection to host=db password=CANARYabc123 failed",
        "wss://api.example/socket?agent=1&token=CANARYabc123",
        "wss://api.example/socket?conversation_signature=CANARYabc123",
    ],
)
def test_what_looks_like_a_credential_is_masked(text: str) -> None:
    masked = redact(f"before {text} after")
    assert "CANARY" not in masked
    assert "abc123" not in masked
    assert "****" in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")


@pytest.mark.parametrize(
    "text",
    [
        "the setting key_rotation is unknown",
        "basic configuration of the agent",
        "max_tokens: 300, agent_0123456789abcdef not found",
        "http://127.0.0.1:8080/v2/list-agents?limit=100 answered 500",
        "mail op@example.com about sk and key_",
        "14:02:07 Retell: 12 agents, 3 read",
        "Send it as Authorization: Bearer TOKEN",
    ],
)
def test_ordinary_lines_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_a_remembered_secret_is_masked_in_its_encodings() -> None:
    remember_secret(CANARY)
    for spelling in (CANARY, quote(CANARY, safe=""), json.dumps(CANARY), repr(CANARY)):
        assert "canary" not in redact(f"x{spelling}y")
    remember_secret("abc")
    assert redact("abc") == "abc", "too short to be masked everywhere"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    remember_secret("zzlong-prefix")
    remember_secret("zzlong-prefix-and-more")
    assert redact("[zzlong-prefix-and-more]") == "[****]"


@pytest.mark.parametrize("piece", ["a", "postgres://", "x://y:", "key_", "eyJaaaaaaaa.", "password", "sk-"])
def test_a_hostile_line_comes_back(piece: str) -> None:
    """A pattern that backtracks would not return within the life of a test run."""
    text = piece * (300_000 // len(piece))
    assert redact(f"{text} end").endswith(" end")


def logged(write: object) -> str:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        logging.Formatter("%(name)s %(message)s %(extra_note)s", defaults={"extra_note": ""})
    )
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("callboard.test.redaction")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        write(logger)  # type: ignore[operator]
    finally:
        logger.removeHandler(handler)
    return out.getvalue()


def test_messages_arguments_extras_and_tracebacks_are_masked() -> None:
    remember_secret(CANARY)

    def write(logger: logging.Logger) -> None:
        logger.warning("key %s refused", CANARY)
        logger.warning("too %d many", CANARY, CANARY)
        logger.warning("extra", extra={"extra_note": CANARY})
        logger.warning("stack", stack_info=True)
        try:
            try:
                raise KeyError(CANARY)
            except KeyError as error:
                raise RuntimeError(f"while using {CANARY}") from error
        except RuntimeError:
            logger.exception("failed for %(who)s", {"who": CANARY})

    text = logged(write)
    assert "canary" not in text
    assert "RuntimeError: while using ****" in text
    assert "KeyError" in text
    assert "failed for ****" in text
