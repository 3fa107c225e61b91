"""Past calls: listing, reading, playing, exporting, deleting, and settling what a killed program left."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.calls import store
from services.calls.archive import Recording, complete, folded, load, read_messages, write_derived
from services.calls.messages import Ended
from services.calls.model import CallRow, EndReason, TransportKind
from services.calls.recording import TRACKS
from services.calls.wave_file import mend
from services.clock import Clock
from services.companies.service import actor
from services.errors import ServiceError, UsageError
from services.events import CallsChanged, EventBus
from services.storage import Database, Reader
from services.storage.journal import record

if TYPE_CHECKING:
    from services.calls.replay import Replay

log = logging.getLogger(__name__)

DEAD_AFTER_MS = 30_000
"""A call whose program was not heard of for this long is over."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What the settings say about calls."""

    folder: Path
    """Where recordings are kept, a folder each."""
    keep_days: int | None = None
    """After how many days recordings are deleted; None keeps them."""
    input_device: str = ""
    output_device: str = ""
    echo: bool = True
    client_tools: Path | None = None
    """A Python file whose public functions agents may call."""


class CallHistory:
    """The calls of one data folder that are stored, those that run included."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        reader: Reader,
        bus: EventBus,
        clock: Clock,
        options: CallOptions,
    ) -> None:
        self.options = options
        self._open_database = open_database
        self._reader = reader
        self._bus = bus
        self._clock = clock

    def is_running(self, call_id: str) -> bool:
        """Whether this program carries the call now."""
        return False

    async def rows(
        self,
        limit: int = 200,
        *,
        text: str = "",
        transport: TransportKind | None = None,
        reason: EndReason | None = None,
        agent_row: int | None = None,
        company: str = "",
    ) -> list[CallRow]:
        """Past and present calls, newest first. `text` is looked for in names, numbers and transcripts."""
        clauses: list[str] = []
        values: list[object] = []
        for column, value in (("transport", transport), ("reason", reason), ("agent_row", agent_row)):
            if value is not None:
                clauses.append(f"{column} = ?")
                values.append(value.value if isinstance(value, TransportKind | EndReason) else value)
        if company:
            clauses.append("lower(company) = lower(?)")
            values.append(company)
        if text:
            needle = f"%{_like(text.lower())}%"
            clauses.append(
                "(lower(agent_name) LIKE ? ESCAPE '!' OR lower(company) LIKE ? ESCAPE '!'"
                " OR number LIKE ? ESCAPE '!'"
                " OR EXISTS (SELECT 1 FROM call_line l WHERE l.call_id = call_record.id"
                " AND lower(l.text) LIKE ? ESCAPE '!'))"
            )
            values += [needle] * 4
        where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
        sql = f"{store.LIST}{where} ORDER BY started_at DESC, id LIMIT ?"

        def read() -> list[CallRow]:
            try:
                return [store.row_of(each) for each in self._reader.rows(sql, [*values, limit])]
            except ServiceError as error:
                if error.code == "missing_table":
                    return []
                raise

        return await asyncio.to_thread(read)

    async def row(self, call_id: str) -> CallRow:
        """One call by its id or the unique beginning of it. Raises UsageError."""
        wanted = call_id.strip().lower()
        sql = f"{store.LIST} WHERE id LIKE ? ESCAPE '!' ORDER BY id LIMIT 2"

        def read() -> list[CallRow]:
            try:
                return [store.row_of(each) for each in self._reader.rows(sql, [_like(wanted) + "%"])]
            except ServiceError as error:
                if error.code == "missing_table":
                    return []
                raise

        found = await asyncio.to_thread(read) if wanted else []
        exact = [each for each in found if each.id == wanted]
        if len(exact or found) == 1:
            return (exact or found)[0]
        if found:
            raise UsageError(f"{call_id!r} is the beginning of several calls", advice="Give more of the id")
        raise UsageError(f"There is no call {call_id!r}", advice="list them with: callboard calls list")

    async def recording(self, call_id: str) -> Recording:
        """A call with everything that was recorded."""
        return await asyncio.to_thread(load, await self.row(call_id))

    async def replay(self, call_id: str) -> Replay:
        """The call, ready to be played."""
        from services.calls.replay import Replay

        recording = await self.recording(call_id)
        length = await asyncio.to_thread(lambda: recording.length_ms)
        return Replay(recording, self._clock, length_ms=length, open_speaker=self._open_speaker)

    async def _open_speaker(self, rate: int) -> Any:
        from services.calls.lines import open_speaker

        return await open_speaker(rate, output_device=self.options.output_device, clock=self._clock)

    async def delete(self, call_ids: Sequence[str], *, cause: str = "") -> int:
        """Delete calls with their recordings; not undoable; those that run are left. Returns how many."""
        ids = [each for each in call_ids if not self.is_running(each)]
        if not ids:
            return 0
        database = await self._open_database()
        now = self._clock.now()

        def write(session: Any) -> dict[str, str]:
            found = store.folders(session, ids)
            store.remove(session, list(found))
            for call_id in found:
                record(session, at=now, actor=actor(), action="call.delete", subject=call_id, cause=cause)
            return found

        found = await database.write(write)
        await asyncio.to_thread(_remove_folders, self.options.folder, list(found.values()))
        self._bus.publish(CallsChanged())
        return len(found)

    async def delete_company(self, company: str) -> None:
        """Delete every call of a company, before the company itself is removed."""
        database = await self._open_database()
        ids = await database.read(lambda session: store.of_company(session, company))
        await self.delete(ids, cause="the company is removed")

    async def export(self, call_id: str, target: Path, *, form: str = "folder") -> Path:
        """Write a call to `target`: its whole folder, or one file. Returns what was written.

        Raises UsageError when something is there already or the form is unknown, ServiceError on a full disk.
        """
        from services.calls.export import export_call

        recording = await self.recording(call_id)
        return await asyncio.to_thread(export_call, recording, target, form)

    async def sweep(self) -> int:
        """Delete recordings older than the settings allow; returns how many."""
        if self.options.keep_days is None:
            return 0
        before = self._clock.now() - self.options.keep_days * DAY_MS
        database = await self._open_database()
        ids = await database.read(lambda session: store.ended_before(session, before))
        return await self.delete(ids, cause=f"older than {self.options.keep_days} days")

    async def recover(self) -> int:
        """Settle calls whose program was killed: what was recorded until then is kept. Returns how many."""
        database = await self._open_database()
        now = self._clock.now()
        before = now - DEAD_AFTER_MS
        found = await database.read(lambda session: store.unfinished(session, before))
        # Several programs may find the same call; the one that takes it over settles it.
        lost = [
            call_id
            for call_id in found
            if not self.is_running(call_id)
            and await database.write(partial(store.take_over, call_id=call_id, before=before, now=now))
        ]
        for call_id in lost:
            await self._settle_dead(await self.row(call_id), ordered=bool(found[call_id]))
        if lost:
            self._bus.publish(CallsChanged(tuple(lost)))
        return len(lost)

    async def _settle_dead(self, row: CallRow, *, ordered: bool) -> None:
        """`ordered`: a number was to be dialled, and nobody knows whether it was."""
        folder = Path(row.folder) if row.folder else None
        messages = await asyncio.to_thread(read_messages, folder) if folder is not None else ()
        live = folded(messages)
        reason = EndReason.MAYBE_PLACED if ordered else EndReason.INTERRUPTED
        t = messages[-1][0] if messages else 0
        ended = live.ended or Ended(reason, "Callboard was stopped while the call ran", by="us")
        ended_at = row.ended_at or row.started_at + t
        has_audio = False
        if folder is not None:
            try:
                if live.ended is None:
                    live.apply(t, ended)
                    await asyncio.to_thread(complete, folder, t, ended, ended_at)
                await asyncio.to_thread(write_derived, folder, live, transcript=row.has_transcript)
            except OSError:
                log.warning("the folder of call %s cannot be completed", row.id)
            has_audio = await asyncio.to_thread(has_audio_in, folder)
        database = await self._open_database()
        await database.write(
            lambda session: store.finish(
                session,
                row.id,
                live,
                transcript=row.has_transcript,
                reason=ended.reason.value,
                detail=ended.detail,
                ended_at=ended_at,
                has_audio=has_audio,
            )
        )


def _remove_folders(root: Path, folders: Sequence[str]) -> None:
    import shutil

    for name in folders:
        folder = Path(name)
        # Only what is below our own folder: a database that was moved here names other machines' paths.
        if name and folder.is_relative_to(root) and folder != root:
            shutil.rmtree(folder, ignore_errors=True)


def _like(text: str) -> str:
    return re.sub(r"([%_!])", r"!\1", text)


def has_audio_in(folder: Path) -> bool:
    """Whether a recording's folder holds any audio. Blocking."""
    return any((info := mend(folder / name)) is not None and info.length_ms > 0 for name in TRACKS.values())
