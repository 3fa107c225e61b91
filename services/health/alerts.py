"""Who is told: channels, and the delivering. What is told, and that it is told once, is decided elsewhere.

The terminal's bell and the desktop are the console's: it hears `AlertRaised` on the bus. Webhooks, e-mail and
commands are served here, each channel in order and on its own, so that a slow one keeps nobody waiting.
Channels keep their secrets (a webhook's whole address is one, it lets in whoever knows it) in the vault.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from services.clock import Clock
from services.companies.service import actor as user
from services.errors import Category, ServiceError, UsageError
from services.events import AlertRaised, EventBus
from services.health import claims, store
from services.health.model import Alert, Channel, CheckKind, HealthState, Incident
from services.http.addresses import is_loopback
from services.resilience import Policies
from services.storage.journal import record
from services.storage.tables import AlertChannel
from services.text import age, clean_line

if TYPE_CHECKING:
    from sqlmodel import Session

    from services.health.delivery import Sender
    from services.integrations.registry import IntegrationService
    from services.security import SecretStore
    from services.storage import Database

log = logging.getLogger("callboard.health")

KINDS: Final = ("bell", "desktop", "webhook", "email", "command")
OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "bell": {},
    "desktop": {},
    "webhook": {},
    "email": {
        "integration": "the name of an smtp integration that sends it",
        "host": "the mail server, where no integration is named",
        "from": "the sender",
        "port": "its port",
        "tls": "starttls, implicit or none",
        "user": "the account at the mail server",
        "ca_file": "the certificates to trust",
    },
    "command": {"argv": "the program and its arguments"},
}
"""The options of each kind of channel, and what they are."""

_PASSING: Final = frozenset({Category.TRANSIENT, Category.TIMEOUT, Category.RATE_LIMIT})
"""What may be over by the next time: who did not take an alert for this is told again, for a day."""
MOST_WAITING: Final = 100
"""Alerts that wait for one channel; of more the oldest are dropped, and that is logged."""
PATIENCE: Final = 10.0
"""Seconds that closing waits for what is under way."""


class AlertDesk:
    """Keeps the channels and delivers alerts over them. Belongs to one event loop."""

    def __init__(
        self,
        open_database: Callable[[], Awaitable[Database]],
        open_secrets: Callable[[], Awaitable[SecretStore]],
        policies: Policies,
        bus: EventBus,
        clock: Clock,
        *,
        integrations: Callable[[], IntegrationService] | None = None,
        sender: Sender | None = None,
    ) -> None:
        self._open_database = open_database
        self._open_secrets = open_secrets
        self._policies = policies
        self._bus = bus
        self._clock = clock
        self._integrations = integrations
        self._sender = sender
        self.owner = ""
        """Who this process is in the leases of what it has to send; the service it belongs to says so."""
        self._waiting: dict[int, deque[tuple[Channel, Alert, str]]] = {}
        self._in_hand: set[str] = set()
        """The leases of what waits or is being sent."""
        self._over: set[str] = set()
        """Leases to be given back when the database is next written."""
        self._tasks: dict[int, asyncio.Task[None]] = {}

    # -- telling ------------------------------------------------------------------------------------

    def deliver(
        self, alert: Alert, channels: Sequence[Channel], leases: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Tell everybody who wants to know; returns at once.

        `leases`: by channel, the lease (see `claims`) that says it is to be told by this process.
        """
        log.info("alert: %s", alert.text)
        wanted = [channel for channel in channels if wants(channel, alert)]
        self._raise(alert.check_id, alert.text, alert.over, wanted)
        for channel in wanted:
            if served(channel, alert):
                self._queue(channel, alert, leases.get(channel.id, ""))

    def send_again(self, alert: Alert, channel: Channel, lease: str) -> None:
        """Tell one channel what it was not told in time."""
        log.warning("an alert that did not go out before is sent to %s now: %s", _label(channel), alert.text)
        self._queue(channel, alert, lease)

    def give_up(self, lease: str) -> None:
        """Whoever was to be told is no longer there."""
        self._over.add(lease)

    def in_hand(self) -> frozenset[str]:
        """The leases of what this process has still to send."""
        return frozenset(self._in_hand)

    def announce(self, incident: Incident, over: bool, channels: Sequence[Channel]) -> None:
        """Another process told of this: let the terminals of this one know, too."""
        if over:
            lasted = age(incident.started_at, incident.ended_at or incident.started_at)
            text = f"{incident.name} is up again after {'less than a minute' if lasted == 'now' else lasted}"
        else:
            text = f"{incident.name} is {incident.state.value}"
            text += f": {incident.message}" if incident.message else ""
        wanted = [channel for channel in channels if channel.enabled and not channel.company]
        self._raise(incident.check_id, text, over, wanted)

    def _raise(self, check_id: str, text: str, over: bool, channels: Sequence[Channel]) -> None:
        kinds = {channel.kind for channel in channels}
        self._bus.publish(AlertRaised(check_id, clean_line(text), over, "bell" in kinds, "desktop" in kinds))

    def _queue(self, channel: Channel, alert: Alert, lease: str) -> None:
        waiting = self._waiting.setdefault(channel.id, deque(maxlen=MOST_WAITING))
        if len(waiting) == MOST_WAITING:
            _, dropped, given_up = waiting[0]
            log.warning("an alert for %s was dropped: %s", _label(channel), dropped.text)
            self._in_hand.discard(given_up)
            self._over.add(given_up)
        waiting.append((channel, alert, lease))
        self._in_hand.add(lease)
        if channel.id not in self._tasks:
            task = asyncio.create_task(self._serve(channel.id), name=f"alerts {channel.id}")
            self._tasks[channel.id] = task

    async def _serve(self, channel_id: int) -> None:
        waiting = self._waiting[channel_id]
        try:
            while waiting:
                channel, alert, lease = waiting.popleft()
                try:
                    if await self._is_ours(lease):
                        await self._send(channel, alert, lease)
                except ServiceError as error:
                    log.warning("an alert did not reach %s: %s", _label(channel), error.message)
                except Exception:
                    log.exception("an alert did not reach %s", _label(channel))
                self._in_hand.discard(lease)
        finally:
            del self._tasks[channel_id]

    async def _is_ours(self, lease: str) -> bool:
        """Whether nobody else has taken it over meanwhile, having waited too long."""
        if not lease:
            return True
        try:
            database, now = await self._open_database(), self._clock.now()
            return await database.write(lambda session: claims.renew(session, self.owner, now, lease))
        except ServiceError:
            return True  # better told twice than not at all

    async def _send(self, channel: Channel, alert: Alert, lease: str = "") -> None:
        error: ServiceError | None = None
        try:
            secret = await (await self._open_secrets()).get(channel.secret_name) or ""
            if self._sender is None:
                self._sender = await asyncio.to_thread(self._make_sender)
            await self._sender.send(channel, secret, alert)
        except ServiceError as failure:
            error = failure
        at, told = self._clock.now(), error.message if error is not None else ""
        later = bool(lease) and error is not None and error.category in _PASSING
        over, self._over = self._over | ({lease} if lease and not later else set()), set()

        def note(session: Session) -> None:
            store.note_delivery(session, channel.id, at, told)
            claims.settle(session, self.owner, over)
            if later:
                claims.put_off(session, self.owner, at, lease)

        with suppress(ServiceError):  # how it went is a remark; whether it went is not decided here
            await (await self._open_database()).write(note)
        if error is not None:
            raise error

    def _make_sender(self) -> Sender:
        from services.health.delivery import Sender

        return Sender(self._policies, self._clock, self._integrations)

    async def aclose(self) -> None:
        """Let what is under way end, within reason."""
        tasks = list(self._tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- the channels -------------------------------------------------------------------------------

    async def channels(self) -> list[Channel]:
        """Every channel, oldest first."""
        return await (await self._open_database()).read(store.channels)

    async def add(
        self,
        kind: str,
        target: str,
        *,
        company: str = "",
        config: Mapping[str, object] | None = None,
        least: HealthState = HealthState.DEGRADED,
        secret: str = "",
        actor: str = "",
    ) -> Channel:
        """Store one; what is secret of it goes into the vault first. Raises UsageError."""
        options = dict(config or {})
        shown, hidden = _checked(kind, target.strip(), options, least, secret)
        now = self._clock.now()

        def write(session: Session) -> Channel:
            owner = store.company(session, company) if company else None
            row = AlertChannel(
                company_id=owner.id if owner else None,
                kind=kind,
                target=shown,
                config=json.dumps(options, ensure_ascii=False, sort_keys=True),
                least=least.value,
                created_at=now,
            )
            session.add(row)
            session.flush()
            record(
                session,
                at=now,
                actor=actor or user(),
                action="health.alert.add",
                subject=f"{kind} {shown}".strip(),
                after={"least": least.value, "company": owner.name if owner else "all"},
            )
            return store.channel(row, owner.name if owner else "")

        database = await self._open_database()
        added = await database.write(write)
        if hidden:
            try:
                await (await self._open_secrets()).set(added.secret_name, hidden)
            except BaseException:
                await database.write(lambda session: _delete(session, added.id))
                raise
        return added

    async def remove(self, channel_id: int, actor: str) -> Channel:
        """Forget one and its secret. Raises UsageError for an unknown one."""
        channel, now = await self._one(channel_id), self._clock.now()

        def write(session: Session) -> None:
            _delete(session, channel_id)
            record(
                session,
                at=now,
                actor=actor or user(),
                action="health.alert.remove",
                subject=f"{channel.kind} {channel.target}".strip(),
            )

        await (await self._open_database()).write(write)
        await (await self._open_secrets()).delete(channel.secret_name)
        return channel

    async def test(self, channel_id: int) -> Channel:
        """Send a test and wait for it. Raises ServiceError saying why it did not arrive."""
        channel, now = await self._one(channel_id), self._clock.now()
        alert = Alert(
            key=f"test/{channel_id}/{now}",
            check_id="test",
            name="Test",
            kind=CheckKind.SYSTEM,
            company=channel.company,
            state=HealthState.UP,
            text="This is a test alert from Callboard; nothing is wrong",
            message="",
            advice="",
            at=now,
            started_at=now,
            ended_at=now,
            test=True,
        )
        if channel.kind in ("bell", "desktop"):
            self._raise(alert.check_id, alert.text, True, [channel])
        else:
            await self._send(channel, alert)
        return replace(channel, sent_at=self._clock.now(), last_error="")

    async def _one(self, channel_id: int) -> Channel:
        for channel in await self.channels():
            if channel.id == channel_id:
                return channel
        raise UsageError(
            f"There is no alert channel {channel_id}",
            advice="list them with: callboard health alerts list",
            code="unknown_channel",
        )


def wants(channel: Channel, alert: Alert) -> bool:
    """Whether a channel is told of an alert."""
    if not channel.enabled or (channel.company and channel.company != alert.company):
        return False
    return alert.worst is HealthState.DOWN or channel.least is HealthState.DEGRADED


def served(channel: Channel, alert: Alert) -> bool:
    """Whether a channel is told of an alert from here, over a network or by a program."""
    return wants(channel, alert) and channel.kind in ("webhook", "email", "command")


def _label(channel: Channel) -> str:
    return f"channel {channel.id} ({channel.kind} {channel.target})"


def _delete(session: Session, channel_id: int) -> None:
    row = session.get(AlertChannel, channel_id)
    if row is not None:
        session.delete(row)


def _checked(
    kind: str, target: str, options: dict[str, Any], least: HealthState, secret: str
) -> tuple[str, str]:
    """What of a channel is shown and what is hidden. Raises UsageError for one that cannot work."""
    if kind not in KINDS:
        raise UsageError(
            f"{clean_line(kind)!r} is no kind of alert", advice=f"use one of: {', '.join(KINDS)}"
        )
    if least not in (HealthState.DEGRADED, HealthState.DOWN):
        raise UsageError("An alert tells of what is degraded or down", advice="use degraded or down")
    unknown = [name for name in options if name not in OPTIONS[kind]]
    if unknown:
        allowed = ", ".join(OPTIONS[kind]) or "there is none"
        raise UsageError(
            f"Alerts by {kind} have no option {clean_line(unknown[0])!r}", advice=f"Options: {allowed}"
        )
    if kind == "webhook":
        return _webhook(target, secret)
    if kind == "command":
        return _command(target, options), ""
    if kind == "email":
        return _email(target, options), secret
    return "", ""


def _webhook(target: str, secret: str) -> tuple[str, str]:
    try:
        parts = urlsplit(target)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or any(ord(char) <= 32 for char in target):
        raise UsageError(
            "A webhook needs an address", advice="give one such as https://example.com/alerts", code="bad_url"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise UsageError(
            f"Alerts for {host} would travel readable by anyone on the way",
            advice="use https; plain http is for this machine only",
            code="bad_url",
        )
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" + ("/…" if parts.path.strip("/") else "")
    return shown, json.dumps({"url": target, "key": secret})


def _command(target: str, options: dict[str, Any]) -> str:
    argv = options.get("argv")
    if argv is None and target:
        import shlex

        try:
            argv = options["argv"] = shlex.split(target)
        except ValueError:
            argv = None
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and word for word in argv):
        raise UsageError(
            "An alert by command needs a program",
            advice="give its path and arguments, such as '/usr/local/bin/page --team ops'; there is no shell",
            code="bad_command",
        )
    import shutil

    if shutil.which(argv[0]) is None:
        raise UsageError(
            f"There is no program {clean_line(argv[0])!r} that may be run here",
            advice="give its full path, and make it executable",
            code="bad_command",
        )
    return clean_line(" ".join(argv))


def _email(target: str, options: dict[str, Any]) -> str:
    from services.integrations.messages.smtp import MailServer, parse_address

    address = parse_address(target)
    if not options.get("integration"):
        if not options.get("host"):
            raise UsageError(
                "An alert by e-mail needs a mail server",
                advice="name an smtp integration with --set integration=NAME, or give host and from",
                code="no_mail_server",
            )
        MailServer.of(options)
    return str(address.addr_spec)


def no_secret(channel: Channel) -> ServiceError:
    """The vault has forgotten what a channel needs."""
    return ServiceError(
        f"What {_label(channel)} needs is not in the secret store",
        category=Category.AUTHENTICATION,
        advice="remove the channel and add it again",
        code="no_key",
    )
