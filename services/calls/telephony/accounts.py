"""A company's access to Twilio and its list of numbers that may be called.

The account SID and the list are in the table `telephony`, the auth token in the secret store. A company may
have a list without an account.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from sqlmodel import Session, select

from services.calls.telephony.numbers import parse_rule
from services.calls.telephony.twilio import BASE_URL, TwilioAccount, TwilioClient, checked_account_sid
from services.clock import Clock
from services.companies.service import actor
from services.errors import Category, ServiceError, UsageError
from services.events import CompaniesChanged, EventBus
from services.http.addresses import normalize_base_url
from services.resilience import Policies, Policy
from services.security import Secret, SecretStore
from services.storage import Database
from services.storage.journal import record
from services.storage.tables import Company, Telephony
from services.text import clean_line

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TelephonyInfo:
    """What is known of a company's telephony; the token is never part of it.

    Without an account `account_sid` is empty. An empty `allowed` list means that every call needs a person's
    confirmation.
    """

    company: str
    company_id: int
    account_sid: str = ""
    base_url: str = BASE_URL
    allowed: tuple[str, ...] = ()
    created_at: int | None = None

    @property
    def has_account(self) -> bool:
        return bool(self.account_sid)

    @property
    def secret_name(self) -> str:
        """The name of the token in the secret store."""
        return f"telephony/{self.company_id}"


class TelephonyService:
    """Twilio accounts and allow-lists of all companies. Methods raise `UsageError` for an unknown company."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        bus: EventBus,
        clock: Clock,
        standing: Callable[[], Awaitable[tuple[str, str, str]]] | None = None,
        policies: Policies | None = None,
    ) -> None:
        """`standing` gives account SID, token and base URL of an account that every company has: the demo's,
        whose simulator listens elsewhere at every start. `policies`: where an account's policy is kept; every
        client has one of its own when None.
        """
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._bus = bus
        self._clock = clock
        self._standing = standing
        self._policies = policies

    async def show(self, company: str) -> TelephonyInfo:
        """What is set; a company without anything has neither account nor list."""
        database = await self._open_database()
        info = await database.read(lambda session: _info(session, company))
        if self._standing is None:
            return info
        sid, _, address = await self._standing()
        return replace(info, account_sid=sid, base_url=address)

    async def set(
        self, company: str, account_sid: str, token: str, *, base_url: str | None = None
    ) -> TelephonyInfo:
        """Store or replace the account; the list stays. Nothing is asked of Twilio here; see `test_account`.

        The token is stored before the row: an account without a token could not be used, a token without an
        account is removed again.
        """
        sid = checked_account_sid(account_sid)
        address = normalize_base_url(base_url) if base_url else BASE_URL
        before = await self.show(company)
        secrets = await self._open_secrets()
        old = await secrets.get(before.secret_name)
        await secrets.set(before.secret_name, token)
        try:
            after = await self._change(company, "telephony.set", account_sid=sid, base_url=address)
        except BaseException:
            await (secrets.set(before.secret_name, old) if old else secrets.delete(before.secret_name))
            raise
        self._forget_policy(after.company)
        return after

    async def remove(self, company: str) -> TelephonyInfo:
        """Forget the account and its token; the list stays."""
        before = await self.show(company)
        if not before.has_account:
            raise _no_account(before.company)
        after = await self._change(company, "telephony.remove", account_sid="", base_url=BASE_URL)
        await (await self._open_secrets()).delete(before.secret_name)
        self._forget_policy(before.company)
        return after

    async def forget(self, company: str) -> None:
        """The company is about to be removed: drop its token. The row goes with the company."""
        before = await self.show(company)
        if before.has_account:
            await (await self._open_secrets()).delete(before.secret_name)
            self._forget_policy(before.company)

    async def allow(self, company: str, rules: Iterable[str]) -> TelephonyInfo:
        """Put numbers, or beginnings with a `*`, on the list. Raises `UsageError` for a wrong one."""
        wanted = [parse_rule(rule) for rule in rules]
        before = await self.show(company)
        return await self._list(company, "telephony.allow", [*before.allowed, *wanted])

    async def disallow(self, company: str, rules: Iterable[str]) -> TelephonyInfo:
        """Take them off the list. Raises `UsageError` for what is not on it."""
        wanted = [parse_rule(rule) for rule in rules]
        before = await self.show(company)
        for rule in wanted:
            if rule not in before.allowed:
                known = ", ".join(before.allowed) or "the list is empty"
                raise UsageError(
                    f"{rule} is not on the list of {before.company}",
                    advice=f"There is: {known}",
                    code="no_rule",
                )
        return await self._list(
            company, "telephony.disallow", [rule for rule in before.allowed if rule not in wanted]
        )

    async def opener(self, company: str) -> Callable[[], TwilioClient] | None:
        """Makes clients of the account, each to be closed by the caller; None without an account.

        Raises `ServiceError` when the token is not in the secret store.
        """
        known = await self.show(company)
        if not known.has_account:
            return None
        if self._standing is not None:
            return self._opener(*await self._standing(), self._policy(known.company))
        token = await (await self._open_secrets()).get(known.secret_name)
        if not token:
            raise ServiceError(
                f"No Twilio token is stored for {known.company}",
                category=Category.AUTHENTICATION,
                advice=f"enter it: callboard phone set {known.company}",
                code="no_key",
            )
        return self._opener(known.account_sid, token, known.base_url, self._policy(known.company))

    async def test(self, company: str) -> TwilioAccount:
        """Ask Twilio whether the stored account and token work. Raises `ServiceError`."""
        return await self._asked(company, TwilioClient.check)

    async def test_account(self, account_sid: str, token: str, base_url: str | None = None) -> TwilioAccount:
        """The same for an account that is not stored yet."""
        address = normalize_base_url(base_url) if base_url else BASE_URL
        client = self._opener(checked_account_sid(account_sid), token, address)()
        try:
            return await client.check()
        finally:
            await client.aclose()

    async def numbers(self, company: str) -> list[str]:
        """The account's own numbers. Raises `UsageError` without an account."""
        return await self._asked(company, TwilioClient.numbers)

    async def _asked(self, company: str, question: Callable[[TwilioClient], Awaitable[T]]) -> T:
        make = await self.opener(company)
        if make is None:
            raise _no_account((await self.show(company)).company)
        client = make()
        try:
            return await question(client)
        finally:
            await client.aclose()

    def _policy(self, company: str) -> Policy | None:
        return self._policies.of(policy_name(company)) if self._policies is not None else None

    def _forget_policy(self, company: str) -> None:
        """What its breaker learnt was about another account."""
        if self._policies is not None:
            self._policies.drop(policy_name(company))

    def _opener(
        self, account_sid: str, token: str, base_url: str, policy: Policy | None = None
    ) -> Callable[[], TwilioClient]:
        secret = Secret(token)
        return lambda: TwilioClient(account_sid, secret, clock=self._clock, base_url=base_url, policy=policy)

    async def _list(self, company: str, action: str, rules: list[str]) -> TelephonyInfo:
        kept = list(dict.fromkeys(rules))
        return await self._change(company, action, allowed_numbers=json.dumps(kept))

    async def _change(self, company: str, action: str, **fields: str) -> TelephonyInfo:
        """Store some fields and the audit row; returns what is there then."""
        now = self._clock.now()

        def write(session: Session) -> TelephonyInfo:
            before = _info(session, company)
            row = session.get(Telephony, before.company_id)
            if row is None:
                row = Telephony(
                    company_id=before.company_id, account_sid="", base_url=BASE_URL, created_at=now
                )
            for name, value in fields.items():
                setattr(row, name, value)
            session.add(row)
            session.flush()
            after = _info(session, company)
            record(
                session,
                at=now,
                actor=actor(),
                action=action,
                subject=before.company,
                before=_changed(before, after),
                after=_changed(after, before),
            )
            return after

        changed = await (await self._open_database()).write(write)
        self._bus.publish(CompaniesChanged())
        return changed


def policy_name(company: str) -> str:
    """What people call this dependency: `Twilio (acme)`."""
    return f"Twilio ({company})"


def _no_account(company: str) -> UsageError:
    return UsageError(
        f"{company} has no Twilio account",
        advice=f"Set one with: callboard phone set {company}",
        code="no_telephony",
    )


def _info(session: Session, name: str) -> TelephonyInfo:
    rows = session.exec(select(Company)).all()
    company = next((row for row in rows if row.name.casefold() == name.strip().casefold()), None)
    if company is None or company.id is None:
        near = get_close_matches(name, [row.name for row in rows], n=1, cutoff=0.5)
        advice = f"did you mean {near[0]}?" if near else "list them with: callboard company list"
        raise UsageError(f"There is no company {clean_line(name)!r}", advice=advice, code="unknown_company")
    row = session.get(Telephony, company.id)
    if row is None:
        return TelephonyInfo(company.name, company.id)
    return TelephonyInfo(
        company.name,
        company.id,
        row.account_sid,
        row.base_url,
        tuple(json.loads(row.allowed_numbers)),
        row.created_at,
    )


def _changed(one: TelephonyInfo, other: TelephonyInfo) -> dict[str, Any]:
    """What the audit shows of one side of a change."""
    shown = {
        "account_sid": (one.account_sid, other.account_sid),
        "base_url": (one.base_url, other.base_url),
        "allowed": (list(one.allowed), list(other.allowed)),
    }
    return {name: mine for name, (mine, theirs) in shown.items() if mine != theirs}
