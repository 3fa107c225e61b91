"""Calls for other programs: the whole folder, or one JSON, text or CSV file. Blocking."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from services.calls.archive import Recording, entry_json, transcript_csv, transcript_text
from services.calls.messages import encode
from services.calls.model import CallRow
from services.errors import ServiceError, UsageError

FORMS = ("folder", "json", "text", "csv")


def row_facts(row: CallRow) -> dict[str, Any]:
    """A stored call as a JSON object, without what was said; times in epoch milliseconds."""
    return {
        "id": row.id,
        "company": row.company,
        "provider": row.provider,
        "agent_id": row.agent_id,
        "agent": row.agent_name,
        "transport": row.transport.value,
        "state": row.state.value,
        "started_at": row.started_at,
        "live_at": row.live_at,
        "ended_at": row.ended_at,
        "duration_ms": row.duration_ms,
        "reason": row.reason.value if row.reason else None,
        "detail": row.detail,
        "turns": row.turns,
        "p50_ms": row.p50_ms,
        "p95_ms": row.p95_ms,
        "cost": row.cost,
        "currency": row.currency,
        "conversation_id": row.conversation_id,
        "number": row.number,
        "simulated": row.simulated,
        "actor": row.actor,
        "folder": row.folder,
    }


def call_document(recording: Recording) -> dict[str, Any]:
    """A call as one JSON object: metadata, brief, transcript, latencies and every message."""
    live = recording.fold()
    return {
        **row_facts(recording.row),
        "audio": {"you": str(recording.you or ""), "agent": str(recording.agent or "")},
        "brief": dict(recording.brief),
        "transcript": [entry_json(entry) for entry in live.entries],
        "latencies": [{"turn": turn.turn, "t": turn.t, "ms": turn.ms} for turn in live.latencies],
        "events": [{"t": t, **encode(message)} for t, message in recording.messages],
    }


def export_call(recording: Recording, target: Path, form: str) -> Path:
    """Write the call; returns the path. Nothing that exists is overwritten. Raises ServiceError."""
    if form not in FORMS:
        raise UsageError(f"{form!r} is not a form of export", advice=f"use one of: {', '.join(FORMS)}")
    try:
        if form == "folder":
            if recording.folder is None:
                raise ServiceError("The recording's folder is gone", code="no_recording")
            place = target / recording.folder.name if target.is_dir() else target
            _refuse_existing(place)
            shutil.copytree(recording.folder, place)
            return place
        suffix = {"json": ".json", "text": ".txt", "csv": ".csv"}[form]
        place = target / f"call-{recording.row.id}{suffix}" if target.is_dir() else target
        _refuse_existing(place)
        if form == "json":
            text = json.dumps(call_document(recording), ensure_ascii=False, indent=2, default=str) + "\n"
        elif form == "text":
            text = transcript_text(recording.fold().entries)
        else:
            text = transcript_csv(list(recording.fold().entries))
        handle = os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise ServiceError(
            f"The export could not be written: {error.strerror or error}",
            advice="Choose another place, or free some space",
            code="os_error",
        ) from error
    return place


def _refuse_existing(place: Path) -> None:
    if place.exists():
        raise UsageError(f"{place} is there already", advice="Choose another name; nothing was overwritten")
