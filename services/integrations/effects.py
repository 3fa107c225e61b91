"""Effects on the world happen at most once: intent first, then the deed, then what became of it.

The row is committed before anything is sent. A second request with the same key gets the first one's row,
whatever state it is in; nothing is repeated. Only an order that never left (our own limit, an open breaker,
nobody reached, no key) does not use its key up: the same request may be tried again under it. A process that
died in between leaves `intended`: whoever finds it asks the other side where that can be asked, else it
becomes `unknown` and a person decides.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import ColumnElement, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.integrations.certainty import NotDone as NotDone
from services.integrations.certainty import is_uncertain as is_uncertain
from services.integrations.certainty import was_never_sent
from services.integrations.model import EffectState as EffectState
from services.model import ErrorInfo
from services.security import redact
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Company, Effect

LONGEST_KEY: Final = 200
"""Characters of an idempotency key."""
LONGEST_MS: Final = 15 * 60_000
"""How long an order may be under way: longer than any attempt takes."""
GIVEN_UP_MS: Final = 180_000
"""How long an effect may stay `intended` before its process counts as gone, while requests have their usual
time limit. One that is under way all the same is put right by its end."""
NOT_SENT: Final = "not_sent"
"""In the result of a failed effect that never left: why, as an error's code. Its key is free again."""
DIGEST: Final = "request_sha256"
"""In a request whose words are not kept any more: their digest, by which it is known again."""
_OPEN: Final = ("intended", "unknown")


def given_up_after(timeout: float) -> int:
    """Milliseconds after which an order without an end is that of a process that is gone.

    `timeout`: seconds that one request may take; there are several attempts, and waits between them.
    """
    return max(GIVEN_UP_MS, round(5_000 * timeout))


@dataclass(frozen=True, slots=True)
class EffectRow:
    """One stored effect."""

    id: str
    company_id: int | None
    kind: str
    key: str
    target: str
    actor: str
    state: EffectState
    simulated: bool
    request: Mapping[str, Any]
    result: Mapping[str, Any]
    provider_id: str
    attempts: int
    error: ErrorInfo | None
    created_at: int
    updated_at: int
    integration_id: int | None = None
    integration: str = ""
    """By which it was ordered: the number of a stored one, and its name at that time."""
    company: str = ""
    """The company's name, where it is read for people."""
    fresh: bool = False
    """Whether this request made it; False for one that was there before."""


@dataclass(frozen=True, slots=True)
class Deed:
    """What performing an effect brought back."""

    provider_id: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be done. `key`: the caller's idempotency key; one effect per company and key.

    Without a key the request is one of its own. `request` is stored and shown: no secret belongs in it. By
    which integration it goes is stored, too, but does not make it another request.
    """

    kind: str
    key: str
    target: str
    company_id: int | None = None
    actor: str = ""
    request: Mapping[str, Any] = field(default_factory=dict)
    integration_id: int | None = None
    integration: str = ""
    simulated: bool = False
    """Whether it will only be pretended: marked from the beginning, whatever becomes of it."""


Hook = Callable[[Session, EffectRow], None]
"""Writes rows that belong to an effect, in the transaction that writes its state."""


def _nothing(session: Session, row: EffectRow) -> None:
    """No rows besides."""


class Effects:
    """Performs effects at most once per key. `new_id` makes row ids and keys."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        clock: Clock,
        *,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        owner: str = "",
    ) -> None:
        self._open_database = open_database
        self._clock = clock
        self._new_id = new_id
        self._owner = owner or new_id()

    def new_key(self) -> str:
        """A key for a request whose caller brought none: every such request is one of its own."""
        return self._new_id()

    async def once(
        self,
        intent: Intent,
        perform: Callable[[EffectRow], Awaitable[Deed]],
        *,
        also: Hook = _nothing,
        ended: Hook = _nothing,
    ) -> EffectRow:
        """Perform the effect unless its key was used before; returns its row either way.

        `also` writes more rows in the transaction that writes the intent, `ended` in the one that writes
        what became of it. `perform` is given the row, whose `id` is what to send as the idempotency key. A
        failure after which the deed may still have happened (`timeout`, a connection that broke while
        waiting) makes the row `unknown` and is raised as such. What never left may be tried again under its
        key: the row, with one attempt more, is then the same, and `also` finds what it wrote before. Raises
        UsageError when the key was used for something else.
        """
        if not intent.key:
            intent = replace(intent, key=self.new_key())
        if len(intent.key) > LONGEST_KEY:
            raise UsageError(
                f"The idempotency key has {len(intent.key)} characters, more than {LONGEST_KEY}",
                advice="Use a shorter one, such as a UUID",
                code="bad_key",
            )
        row = await self._begin(intent, also)
        if not row.fresh:
            return row
        try:
            deed = await perform(row)
        except ServiceError as error:
            state = EffectState.UNKNOWN if is_uncertain(error) else EffectState.FAILED
            await self._end(row, state, ended, error=error)
            raise
        except BaseException:
            # Cancelled or broken in the middle: what happened outside is not known.
            await self._end(row, EffectState.UNKNOWN, ended, error=_interrupted())
            raise
        return await self._end(row, EffectState.DONE, ended, deed)

    async def of_key(self, company_id: int | None, key: str) -> EffectRow | None:
        """What was ordered under a key; None for a new one."""
        database = await self._open_database()
        return await database.read(lambda session: _maybe(_found(session, company_id, key)))

    async def get(self, effect_id: str) -> EffectRow | None:
        database = await self._open_database()
        return await database.read(lambda session: _maybe(session.get(Effect, effect_id)))

    async def recent(
        self,
        kind: str,
        *,
        company_id: int | None = None,
        state: EffectState | None = None,
        beginning: str = "",
        limit: int = 50,
    ) -> list[EffectRow]:
        """The latest effects of a kind, or of all kinds below it (`crm` has `crm.contact`), newest first.

        A kind that ends in a dot means those below alone. `beginning`: only those whose id begins so.
        """

        def read(session: Session) -> list[EffectRow]:
            rows = select(Effect, Company.name).where(_of_kind(kind))
            rows = rows.join(Company, col(Company.id) == col(Effect.company_id), isouter=True)
            if company_id is not None:
                rows = rows.where(Effect.company_id == company_id)
            if state is not None:
                rows = rows.where(Effect.state == state.value)
            if beginning:
                rows = rows.where(col(Effect.id).startswith(beginning, autoescape=True))
            newest = rows.order_by(col(Effect.created_at).desc(), col(Effect.id)).limit(limit)
            return [replace(_row(row), company=name or "") for row, name in session.exec(newest)]

        return await (await self._open_database()).read(read)

    async def settle(
        self,
        effect_id: str,
        state: EffectState,
        *,
        cause: str,
        actor: str,
        deed: Deed | None = None,
        also: Hook = _nothing,
    ) -> EffectRow:
        """Decide what became of an effect that is `intended` or `unknown`, by asking or by a person.

        Raises UsageError for one that is decided already, or that is not there.
        """
        now = self._clock.now()

        def write(session: Session) -> EffectRow:
            row = session.get(Effect, effect_id, with_for_update=True)
            if row is None:
                raise UsageError("There is no such effect", advice="Look at it again", code="unknown_effect")
            if row.state not in _OPEN:
                raise UsageError(
                    f"That is decided already: {row.state}", advice="Look at it again", code="effect_settled"
                )
            before = row.state
            row.state, row.updated_at, row.ended_at = state, now, now
            if deed is not None:
                row.provider_id, row.result = deed.provider_id, _json(deed.result)
                row.simulated = row.simulated or deed.simulated
            session.add(row)
            record(
                session,
                at=now,
                actor=actor,
                action=f"{row.kind}.settle",
                subject=row.target,
                cause=cause,
                before={"state": before},
                after={"state": state.value},
            )
            settled = _row(row)
            also(session, settled)
            return settled

        return await (await self._open_database()).write(write)

    async def give_up(
        self, kind: str, *, older_than_ms: int = GIVEN_UP_MS, also: Hook = _nothing
    ) -> list[EffectRow]:
        """Make `unknown` what a process left `intended` when it died; returns those.

        For effects whose outcome cannot be asked for.
        """
        found = []
        for row in await self.open_ones(kind, older_than_ms=older_than_ms):
            try:
                found.append(
                    await self.settle(
                        row.id,
                        EffectState.UNKNOWN,
                        cause="the program ended before the other side answered",
                        actor="callboard",
                        also=also,
                    )
                )
            except UsageError:
                continue  # decided by somebody else in the meantime
        return found

    async def open_ones(self, kind: str, *, older_than_ms: int) -> list[EffectRow]:
        """Effects of a kind, or below it, still `intended` whose last sign of life is older: their process
        is gone."""
        limit = self._clock.now() - older_than_ms

        def read(session: Session) -> list[EffectRow]:
            rows = session.exec(
                select(Effect).where(
                    _of_kind(kind),
                    Effect.state == EffectState.INTENDED.value,
                    col(Effect.updated_at) < limit,
                )
            )
            return [_row(row) for row in rows]

        return await (await self._open_database()).read(read)

    async def _begin(self, intent: Intent, also: Hook) -> EffectRow:
        now = self._clock.now()

        def write(session: Session) -> EffectRow:
            known = _found(session, intent.company_id, intent.key)
            if known is not None:
                return self._again(session, known, intent, also, now)
            row = Effect(
                id=self._new_id(),
                company_id=intent.company_id,
                kind=intent.kind,
                key=intent.key,
                target=intent.target,
                actor=intent.actor,
                state=EffectState.INTENDED.value,
                owner=self._owner,
                integration_id=intent.integration_id,
                integration=intent.integration,
                simulated=intent.simulated,
                request=_json(intent.request),
                attempts=1,
                created_at=now,
                updated_at=now,
            )
            try:
                with session.begin_nested():
                    session.add(row)
            except IntegrityError:  # another process was faster by a moment
                again = _found(session, intent.company_id, intent.key)
                if again is None:
                    raise
                return self._again(session, again, intent, also, now)
            fresh = _row(row, fresh=True)
            also(session, fresh)
            return fresh

        return await (await self._open_database()).write(write)

    def _again(self, session: Session, known: Effect, intent: Intent, also: Hook, now: int) -> EffectRow:
        """The row of a key that was used before: tried again if it never left, else as it is."""
        before = _row(known)
        if not _is_same(before, intent):
            raise UsageError(
                f"The idempotency key {intent.key[:40]!r} was used for another request",
                advice="Use a new key for a new request",
                code="key_reused",
            )
        if before.state is not EffectState.FAILED or NOT_SENT not in before.result:
            return before
        taken = session.execute(
            update(Effect)
            .where(
                col(Effect.id) == before.id,
                col(Effect.state) == EffectState.FAILED.value,
                col(Effect.attempts) == before.attempts,
            )
            .values(
                state=EffectState.INTENDED.value,
                owner=self._owner,
                actor=intent.actor,
                integration_id=intent.integration_id,
                integration=intent.integration,
                simulated=intent.simulated,
                request=_json(intent.request),
                result="{}",
                attempts=before.attempts + 1,
                error_category=None,
                error_message=None,
                error_advice=None,
                created_at=now,
                updated_at=now,
                ended_at=None,
            )
        )
        session.refresh(known)
        if taken.rowcount != 1:  # type: ignore[attr-defined]  # an update has one; another was faster
            return _row(known)
        fresh = _row(known, fresh=True)
        also(session, fresh)
        return fresh

    async def _end(
        self,
        row: EffectRow,
        state: EffectState,
        ended: Hook,
        deed: Deed | None = None,
        error: ServiceError | None = None,
    ) -> EffectRow:
        now = self._clock.now()
        values: dict[str, Any] = {"state": state.value, "updated_at": now, "ended_at": now}
        if deed is not None:
            values |= {
                "provider_id": deed.provider_id,
                "result": _json(deed.result),
                "simulated": row.simulated or deed.simulated,
            }
        if error is not None:
            values |= {
                "error_category": error.category.value,
                "error_message": redact(error.message),
                "error_advice": redact(error.advice),
            }
            if state is EffectState.FAILED and was_never_sent(error):
                values["result"] = _json({NOT_SENT: error.code})

        def write(session: Session) -> EffectRow:
            # What a person settled meanwhile stays as it was settled.
            session.execute(
                update(Effect).where(col(Effect.id) == row.id, col(Effect.state).in_(_OPEN)).values(**values)
            )
            found = session.get(Effect, row.id, populate_existing=True)
            if found is None:
                raise ServiceError("The company was removed meanwhile", code="gone")
            last = _row(found, fresh=True)
            ended(session, last)
            return last

        return await (await self._open_database()).write(write)


def _interrupted() -> ServiceError:
    return ServiceError(
        "It was interrupted before the other side answered",
        category=Category.TRANSIENT,
        advice="Look there whether it happened before ordering it again",
        code="interrupted",
    )


def _of_kind(kind: str) -> ColumnElement[bool]:
    """Of this kind, or of one below it: `crm` has `crm.contact`; `crm.` is only what is below."""
    if kind.endswith("."):
        return col(Effect.kind).startswith(kind, autoescape=True)
    return (col(Effect.kind) == kind) | col(Effect.kind).startswith(f"{kind}.", autoescape=True)


def _found(session: Session, company_id: int | None, key: str) -> Effect | None:
    same = select(Effect).where(Effect.key == key)
    if company_id is None:
        same = same.where(col(Effect.company_id).is_(None))
    else:
        same = same.where(Effect.company_id == company_id)
    return session.exec(same).first()


def digest_of(request: Mapping[str, Any]) -> str:
    """By what a request is known again once its words are gone."""
    return hashlib.sha256(_json(_plain(request)).encode("utf-8", "surrogatepass")).hexdigest()


def _is_same(row: EffectRow, intent: Intent) -> bool:
    """Whether the intent asks for what the row stands for."""
    if (row.kind, row.target) != (intent.kind, intent.target):
        return False
    kept = row.request.get(DIGEST)
    return digest_of(intent.request) == kept if kept else dict(row.request) == _plain(intent.request)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(_json(value))
    return plain


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _maybe(row: Effect | None) -> EffectRow | None:
    return None if row is None else _row(row)


def _row(row: Effect, *, fresh: bool = False) -> EffectRow:
    error = None
    if row.error_category:
        error = ErrorInfo(row.error_category, row.error_message or "", row.error_advice or "")
    return EffectRow(
        id=row.id,
        company_id=row.company_id,
        kind=row.kind,
        key=row.key,
        target=row.target,
        actor=row.actor,
        state=EffectState(row.state),
        simulated=row.simulated,
        request=json.loads(row.request),
        result=json.loads(row.result),
        provider_id=row.provider_id,
        attempts=row.attempts,
        error=error,
        created_at=row.created_at,
        updated_at=row.updated_at,
        integration_id=row.integration_id,
        integration=row.integration,
        fresh=fresh,
    )
