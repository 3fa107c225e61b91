"""Why ElevenLabs ended a conversation: its error frames and close codes in an operator's words.

Error types: the vendor's published message types. Close codes: 1000 is a normal end, anything else an
error whose reason is meaningful and shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.calls.model import EndReason
from services.errors import Category, ServiceError
from services.text import clean_line

NORMAL: Final = 1000
TOO_BIG: Final = 1009
ABNORMAL: Final = 1006
_NO_WORDS: Final = 1005

_BY_TYPE: Final = MappingProxyType(
    {
        "override_error": EndReason.OVERRIDE_REFUSED,
        "missing_dynamic_variable": EndReason.MISSING_VARIABLE,
        "missing_dynamic_variable_transfer": EndReason.MISSING_VARIABLE,
        "max_duration_exceeded": EndReason.MAX_DURATION,
        "safety_violation": EndReason.NOT_ALLOWED,
        "websocket_disconnect": EndReason.CONNECTION_LOST,
        "llm_timeout": EndReason.TIMEOUT,
        "transport_receive_timeout": EndReason.TIMEOUT,
        "asyncio_timeout": EndReason.TIMEOUT,
    }
)
_MEANINGS: Final = MappingProxyType(
    {
        "invalid_message": "it did not understand what we sent",
        "missing_fields": "it misses something in what we sent",
        "value_error": "it did not accept a value we sent",
        "telephony_agent_error": "its telephony failed",
        "mcp_tool_error": "an MCP tool failed",
        "mcp_https_error": "an MCP server could not be reached",
        "websocket_disconnect": "it lost the connection",
        "safety_violation": "its safety rules forbid it",
        "llm_timeout": "the language model did not answer in time",
        "transport_receive_timeout": "nothing arrived from us in time",
        "asyncio_timeout": "something inside it took too long",
        "http_exception": "a request inside it failed",
        "max_duration_exceeded": "the agent's longest duration was reached",
        "llm_error": "the language model failed",
        "custom_llm_error": "the agent's own language model failed",
        "cascade_brain_error": "every language model of the agent failed",
        "asr_transcription_error": "the speech recognition failed",
        "vad_error": "the voice detection failed",
        "turn_probability_error": "the turn detection failed",
        "tts_cascade_error": "every voice of the agent failed",
        "redis_timeout_error": "something inside it took too long",
        "unknown_websocket_crash": "it crashed",
    }
)
_OVERRIDE: Final = re.compile(
    r"override for field ['\"“`]?([\w.\[\]-]{1,80})['\"”`]? is not allowed", re.IGNORECASE
)
_NAMES: Final = re.compile(r"['\"`“]([A-Za-z_][\w.-]{0,80})['\"`”]|\{\{\s*([\w.-]{1,80})\s*\}\}")
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]{0,80}")
_VARIABLE: Final = re.compile(r"dynamic[ _]variable", re.IGNORECASE)
_SIGNS: Final = (
    (
        re.compile(r"max\w*.{0,20}duration|duration.{0,20}(exceed|reached)", re.IGNORECASE),
        EndReason.MAX_DURATION,
    ),
    (
        re.compile(
            r"quota|credit|concurren|too many|rate.?limit|daily limit|exceeds your|payment|subscription",
            re.IGNORECASE,
        ),
        EndReason.LIMIT,
    ),
    (re.compile(r"\borigin\b|allow.?list|blocked|forbidden", re.IGNORECASE), EndReason.NOT_ALLOWED),
    (
        re.compile(
            r"auth|api.?key|signature|signed.?url|(access|invalid) token|permission|expired",
            re.IGNORECASE,
        ),
        EndReason.AUTHENTICATION,
    ),
    (re.compile(r"timed? ?out", re.IGNORECASE), EndReason.TIMEOUT),
)
_CODES: Final = MappingProxyType(
    {
        EndReason.OVERRIDE_REFUSED: ("override_refused", Category.PERMANENT),
        EndReason.MISSING_VARIABLE: ("missing_variable", Category.PERMANENT),
        EndReason.NOT_ALLOWED: ("not_allowed", Category.PERMANENT),
        EndReason.AUTHENTICATION: ("wrong_key", Category.AUTHENTICATION),
        EndReason.LIMIT: ("limit", Category.RATE_LIMIT),
        EndReason.TIMEOUT: ("timeout", Category.TIMEOUT),
        EndReason.CONNECTION_LOST: ("connection_lost", Category.TRANSIENT),
        EndReason.PROTOCOL_ERROR: ("protocol_error", Category.PERMANENT),
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the vendor ends or ended the conversation. `message` is a sentence without its full stop."""

    reason: EndReason
    message: str
    advice: str = ""
    code: int | None = None

    def as_error(self) -> ServiceError:
        """The same for a conversation that never began."""
        code, category = _CODES.get(self.reason, ("vendor_error", Category.TRANSIENT))
        return ServiceError(self.message, category=category, advice=self.advice, code=code)


def from_error_frame(error_type: str, message: str, code: int | None) -> Failure:
    """The meaning of an `error` frame: its type where it has a known one, else its words."""
    said = _said(message)
    named = _by_words(said, code)
    if named is not None and named.reason in (EndReason.OVERRIDE_REFUSED, EndReason.MISSING_VARIABLE):
        return named
    reason = _BY_TYPE.get(error_type)
    if reason is EndReason.OVERRIDE_REFUSED:
        return _override("", said, code)
    if reason is EndReason.MISSING_VARIABLE:
        return _variables(said, code)
    if reason is None and named is not None:
        return named
    meaning = _MEANINGS.get(error_type, "")
    words = f"{meaning}: {said}" if meaning and said else meaning or said or "it did not say which"
    return Failure(
        reason or EndReason.VENDOR_ERROR, f"ElevenLabs reports an error: {words}", _advice(reason), code
    )


def from_close(code: int | None, reason: str, *, began: bool) -> Failure:
    """The meaning of a closed socket: the vendor's words where it gave some.

    `began` is whether the conversation had begun: before that even a normal close is a refusal.
    """
    said = _said(reason)
    if code == TOO_BIG:
        return too_big()
    if code in (None, ABNORMAL):
        return Failure(
            EndReason.CONNECTION_LOST if began else EndReason.UNREACHABLE,
            "The connection to ElevenLabs broke off without a good-bye",
            "The protocol cannot take a conversation up again: begin a new one",
            code,
        )
    found = _by_words(said, code)
    if code in (NORMAL, _NO_WORDS) and began and found is None:
        return Failure(EndReason.AGENT_ENDED, said, "", code)
    if found is not None:
        return found
    words = f": {said}" if said else " without giving a reason"
    return Failure(
        EndReason.VENDOR_ERROR,
        f"ElevenLabs closed the conversation (code {code}){words}",
        _advice(None),
        code,
    )


def too_big() -> Failure:
    """A frame beyond every sensible size."""
    return Failure(
        EndReason.PROTOCOL_ERROR,
        "ElevenLabs sent a frame of more than 16 MiB, which is not read",
        "Begin a new conversation; if it happens again, tell the vendor",
        TOO_BIG,
    )


def _by_words(said: str, code: int | None) -> Failure | None:
    """What a sentence of the vendor means; None where it holds none of the known signs."""
    override = _OVERRIDE.search(said)
    if override is not None:
        return _override(override[1], said, code)
    if _VARIABLE.search(said):
        return _variables(said, code)
    for sign, reason in _SIGNS:
        if sign.search(said):
            return Failure(reason, f"ElevenLabs ended the conversation: {said}", _advice(reason), code)
    return None


def _override(field: str, said: str, code: int | None) -> Failure:
    if field.rpartition(".")[2] == "text_only":
        return Failure(
            EndReason.OVERRIDE_REFUSED,
            f"The agent does not allow a conversation in text only (override of “{field}”)",
            "Allow the override “text only” in the agent's security settings, or make the agent text only",
            code,
        )
    what = f"the override of “{field}”" if field else f"an override ({said or 'it does not say which'})"
    return Failure(
        EndReason.OVERRIDE_REFUSED,
        f"The agent does not allow {what}",
        "Allow this override in the agent's security settings, or leave it out of the brief",
        code,
    )


def _variables(said: str, code: int | None) -> Failure:
    names = list(dict.fromkeys(first or second for first, second in _NAMES.findall(said)))
    if not names:
        listed = [name.strip() for name in said.rpartition(":")[2].split(",")]
        names = listed if ":" in said and all(map(_NAME.fullmatch, listed)) else []
    if not names:
        what = f"a dynamic variable is missing: {said}" if said else "a dynamic variable is missing"
    elif len(names) == 1:
        what = f"the dynamic variable “{names[0]}” is missing"
    else:
        what = "dynamic variables are missing: " + ", ".join(f"“{name}”" for name in names)
    return Failure(
        EndReason.MISSING_VARIABLE,
        f"ElevenLabs ended the conversation: {what}",
        "Give it in the brief, or set a default for it in the agent",
        code,
    )


def _advice(reason: EndReason | None) -> str:
    if reason is EndReason.AUTHENTICATION:
        return "Begin the call again (a signed address holds for minutes only), or check the key"
    if reason is EndReason.LIMIT:
        return "Wait until another conversation has ended, or look at the plan and its credits"
    if reason is EndReason.NOT_ALLOWED:
        return "Look at the agent's security settings at ElevenLabs"
    if reason is EndReason.MAX_DURATION:
        return ""
    return "Try again; if it stays, look at the conversation's page at ElevenLabs"


def _said(text: str) -> str:
    line = clean_line(text[:2000]).rstrip(".")
    return line if len(line) <= 300 else line[:299] + "…"
