"""What ElevenLabs tells about a conversation once it is over: cost, latency figures, why it ended.

Shapes: the vendor's specification of 2026-08 (`metadata.cost` in credits, `cost_fiat` in dollars,
`conversation_turn_metrics` in seconds).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeGuard

from services.calls.elevenlabs_fields import is_number
from services.calls.elevenlabs_rest import ElevenLabsRest
from services.calls.messages import Cost, Message, Notice, VendorLatency
from services.errors import ServiceError
from services.text import clean_line

log = logging.getLogger(__name__)

WAITS: Final = (0.4, 0.8, 1.2, 2.0, 2.0)
"""Seconds before each look: the vendor counts up for a moment after the end."""
SECONDS: Final = 6.5
"""All looks together."""
_STAGES: Final = {
    "llm_service_ttfb": "llm",
    "tts_service_ttfb": "tts",
    "asr_trailing_service_latency": "asr",
}
_PASSING: Final = frozenset({"not_found", "server_error", "timeout", "rate_limited", "connection_lost"})
_MOST_TURNS: Final = 500

_ORDINARY: Final = ("Client disconnected: 1000", "end_call tool was called", "Call ended by remote party")
"""The vendor's words for ends that the call itself has told."""


async def read_aftermath(
    rest: ElevenLabsRest,
    conversation_id: str,
    *,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> list[Message]:
    """Ask a few times until the vendor has counted up; what it has by then. Never raises `ServiceError`."""
    data: dict[str, Any] = {}
    try:
        async with asyncio.timeout(SECONDS):
            for wait in WAITS:
                await sleep(wait)
                try:
                    data = await rest.conversation(conversation_id)
                except ServiceError as error:
                    log.info("a conversation that is over could not be read: %s", error.code)
                    if error.code not in _PASSING:
                        break
                if data.get("status") in ("done", "failed"):
                    break
    except TimeoutError:
        log.info("the vendor has not counted up a conversation in time")
    return messages_of(data)


def messages_of(data: dict[str, Any]) -> list[Message]:
    """The messages in the vendor's object of a conversation, which may hold anything."""
    found: list[Message] = []
    transcript = data.get("transcript")
    for turn in transcript[:_MOST_TURNS] if isinstance(transcript, list) else []:
        figures = _figures(turn)
        if figures:
            event = turn.get("source_event_id")
            found.append(VendorLatency(figures, event if isinstance(event, int) else None))
    metadata = data.get("metadata")
    if not isinstance(metadata, dict):
        return found
    final = data.get("status") in ("done", "failed")
    if _is_amount(metadata.get("cost_fiat")):
        found.append(Cost(float(metadata["cost_fiat"]), "USD", final))
    elif _is_amount(metadata.get("cost")):
        found.append(Cost(float(metadata["cost"]), "credits", final))
    ended = metadata.get("termination_reason")
    if isinstance(ended, str) and ended.strip() and not ended.startswith(_ORDINARY):
        found.append(Notice(f"ElevenLabs about the end: {clean_line(ended)[:300]}"))
    warnings = metadata.get("warnings")
    for warning in warnings[:10] if isinstance(warnings, list) else []:
        if isinstance(warning, str) and warning.strip():
            found.append(Notice(f"ElevenLabs warns: {clean_line(warning)[:300]}", "look"))
    return found


def _figures(turn: Any) -> dict[str, float]:
    """The figures of one turn in milliseconds, by stage."""
    metrics = turn.get("conversation_turn_metrics") if isinstance(turn, dict) else None
    records = metrics.get("metrics") if isinstance(metrics, dict) else None
    found: dict[str, float] = {}
    for name, record in records.items() if isinstance(records, dict) else ():
        seconds = record.get("elapsed_time") if isinstance(record, dict) else None
        if _is_amount(seconds):
            plain = clean_line(str(name))[:60].removeprefix("convai_")
            found[_STAGES.get(plain, plain)] = round(seconds * 1000, 1)
    return found


def _is_amount(value: object) -> TypeGuard[float]:
    return is_number(value) and value >= 0
