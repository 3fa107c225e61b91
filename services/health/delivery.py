"""How an alert travels: signed webhooks, e-mail, commands. Every failure is a ServiceError in words.

Webhooks follow the Standard Webhooks specification (standardwebhooks.com): `webhook-id`, `webhook-timestamp`
and, with a key, `webhook-signature: v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. The id is
the same however often an alert is sent, so a receiver can drop repeats.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from services.clock import Clock
from services.errors import Category, ServiceError
from services.health.model import Alert, Channel
from services.resilience import Attempt, Policies, RetryOptions
from services.security import redact, remember_secret
from services.text import clean_line

if TYPE_CHECKING:
    from services.integrations.registry import IntegrationService

WEBHOOK_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 15.0
TRY_LATER: Final = 75
"""The exit code of a command that is to be run again later: EX_TEMPFAIL of sysexits.h."""
MOST_OUTPUT: Final = 4096
"""Bytes of a command's output that are kept for its error."""
RETRIES: Final = RetryOptions(attempts=4, first_wait=1.0, longest_wait=20.0, budget=60.0)

_KEPT_ENVIRONMENT: Final = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT",
    # Where this program keeps its files: a command that runs it means this installation.
    "CALLBOARD_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME",
)  # fmt: skip


class Sender:
    """Sends one alert over one channel."""

    def __init__(
        self,
        policies: Policies,
        clock: Clock,
        integrations: Callable[[], IntegrationService] | None = None,
        *,
        command_seconds: float = COMMAND_SECONDS,
    ) -> None:
        self._policies = policies
        self._clock = clock
        self._integrations = integrations
        self._command_seconds = command_seconds

    async def send(self, channel: Channel, secret: str, alert: Alert) -> None:
        """Send; `secret` is what the vault has for the channel. Raises ServiceError if it did not arrive."""
        ways: Mapping[str, Callable[[Channel, str, Alert], Awaitable[None]]] = {
            "webhook": self._webhook,
            "email": self._email,
            "command": self._command,
        }
        await ways[channel.kind](channel, secret, alert)

    # -- webhook ------------------------------------------------------------------------------------

    async def _webhook(self, channel: Channel, secret: str, alert: Alert) -> None:
        from services.health.alerts import no_secret

        try:
            hidden = json.loads(secret)
            url, key = str(hidden["url"]), str(hidden.get("key", ""))
        except (ValueError, KeyError, TypeError):
            raise no_secret(channel) from None
        remember_secret(url)
        if key:
            remember_secret(key)
        body = json.dumps(payload(alert), ensure_ascii=False, separators=(",", ":")).encode()
        host = urlsplit(url).hostname or "the webhook"

        async def post(attempt: Attempt) -> None:
            await _post(url, host, self._headers(alert, body, key), body)

        policy = self._policies.of(f"alerts to {host}", retry_options=RETRIES)
        await policy.run(post, write=True, idempotency_key=alert.key)

    def _headers(self, alert: Alert, body: bytes, key: str) -> dict[str, str]:
        stamp = str(self._clock.now() // 1000)
        message_id = f"msg_{hashlib.sha256(alert.key.encode()).hexdigest()[:32]}"
        headers = {
            "content-type": "application/json",
            "user-agent": "callboard",
            "webhook-id": message_id,
            "webhook-timestamp": stamp,
        }
        if key:
            headers["webhook-signature"] = signature(key, message_id, stamp, body)
        return headers

    # -- e-mail -------------------------------------------------------------------------------------

    async def _email(self, channel: Channel, secret: str, alert: Alert) -> None:
        from services.integrations.messages.model import Channel as Way
        from services.integrations.messages.model import Order
        from services.integrations.messages.smtp import SmtpAdapter
        from services.integrations.model import IntegrationInfo, Kind
        from services.security import Secret

        name = str(channel.config.get("integration", ""))
        if name:
            info, password = await self._mail_integration(name)
        else:
            info = IntegrationInfo(
                None, None, channel.company, Kind.MESSAGES, "smtp", f"alerts {channel.id}", "", channel.config
            )
            password = Secret(secret)
        adapter = SmtpAdapter(info, password, self._policies.of(info.policy), self._clock)
        mark = "" if not alert.simulated else " (simulated)"
        order = Order(
            id=hashlib.sha256(alert.key.encode()).hexdigest()[:24],
            company=alert.company,
            channel=Way.EMAIL,
            to=channel.target,
            subject=f"[Callboard] {_headline(alert)}{mark}",
            body=letter(alert),
        )
        await adapter.send(await adapter.checked(order))

    async def _mail_integration(self, name: str) -> tuple[Any, Any]:
        if self._integrations is None:
            raise ServiceError(f"There is no integration {clean_line(name)!r}", code="unknown_integration")
        service = self._integrations()
        for info in await service.list():
            if info.adapter == "smtp" and info.name.casefold() == name.casefold() and info.enabled:
                return info, await service.secret_of(info)
        raise ServiceError(
            f"There is no smtp integration {clean_line(name)!r} any more",
            advice="callboard integration list",
            code="unknown_integration",
        )

    # -- command ------------------------------------------------------------------------------------

    async def _command(self, channel: Channel, secret: str, alert: Alert) -> None:
        argv = [str(word) for word in channel.config.get("argv", ())]
        environ = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        environ.update(variables(alert))
        name = clean_line(argv[0]) if argv else "nothing"
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environ,
                start_new_session=True,
            )
        except (OSError, ValueError, TypeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it cannot be run"
            raise ServiceError(
                f"The command {name} could not be started: {reason}", advice="check its path and permissions"
            ) from None
        output = b""
        try:
            async with asyncio.timeout(self._command_seconds):
                output = await _read(process)
                code = await process.wait()
        except TimeoutError:
            raise ServiceError(
                f"The command {name} did not end within {self._command_seconds:g} s and was stopped",
                category=Category.TIMEOUT,
                advice="Let it return at once and work in the background",
            ) from None
        finally:
            await _end(process)
        if code != 0:
            # With any other code it may have failed after somebody was told.
            passing = code == TRY_LATER
            said = clean_line(redact(output.decode("utf-8", "replace")))[:300]
            raise ServiceError(
                f"The command {name} ended with code {code}" + (f": {said}" if said else ""),
                category=Category.TRANSIENT if passing else Category.PERMANENT,
                advice="Run it by hand with the variables of an alert (CALLBOARD_ALERT_…)",
            )


async def _post(url: str, host: str, headers: Mapping[str, str], body: bytes) -> None:
    import httpx

    from services.http.failures import retry_after

    local = urlsplit(url).scheme == "http"
    try:
        async with httpx.AsyncClient(timeout=WEBHOOK_SECONDS, trust_env=not local) as client:
            answer = await client.post(url, content=body, headers=dict(headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        slow = isinstance(error, httpx.TimeoutException)
        failure = ServiceError(
            f"{host} did not answer in time" if slow else f"{host} could not be reached",
            category=Category.TIMEOUT if slow else Category.TRANSIENT,
            advice="Check the address, and whether the service behind it runs",
            code="unreachable",
        )
    else:
        if answer.is_success:
            return
        failure = _refused(host, answer.status_code, retry_after(answer.headers, 0))
    # Raised here, so that no exception hangs on it that holds the request, whose address is secret.
    raise failure


def _refused(host: str, status: int, wait: float | None) -> ServiceError:
    if status == 429:
        category = Category.RATE_LIMIT
    elif status >= 500 or status == 408:
        category = Category.TRANSIENT
    else:
        category = Category.AUTHENTICATION if status in (401, 403) else Category.PERMANENT
    return ServiceError(
        f"{host} answered the alert with {status}",
        category=category,
        advice="Check the webhook's address and key at its receiver",
        retry_after=wait,
    )


async def _read(process: asyncio.subprocess.Process) -> bytes:
    """The beginning of the output; the rest is read and thrown away, so that the command is not held up."""
    assert process.stdout is not None  # noqa: S101  # asked for above
    kept = b""
    while chunk := await process.stdout.read(65_536):
        kept = (kept + chunk)[:MOST_OUTPUT]
    return kept


async def _end(process: asyncio.subprocess.Process) -> None:
    """See that neither the command nor what it started goes on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    if process.returncode is None:
        await process.wait()


def signature(key: str, message_id: str, stamp: str, body: bytes) -> str:
    """The signature of a webhook; a key that begins with `whsec_` is base64, as the specification has it."""
    secret = key.encode()
    if key.startswith("whsec_"):
        with contextlib.suppress(ValueError):
            secret = base64.b64decode(key.removeprefix("whsec_"), validate=True)
    signed = b".".join((message_id.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


def payload(alert: Alert) -> dict[str, Any]:
    """The JSON of a webhook. `text` is what chat services such as Slack and Mattermost show."""
    return {
        "schema": "callboard.alert/1",
        "type": _type(alert),
        "text": alert.text,
        "check": alert.check_id,
        "name": alert.name,
        "kind": alert.kind.value,
        "company": alert.company,
        "state": alert.state.value,
        "message": alert.message,
        "advice": alert.advice,
        "at": alert.at,
        "started_at": alert.started_at,
        "ended_at": alert.ended_at,
        "downtime_ms": alert.ended_at - alert.started_at if alert.ended_at is not None else None,
        "dependents": alert.dependents,
        "simulated": alert.simulated,
    }


def _type(alert: Alert) -> str:
    """What a receiver decides by: whether something began, is over, or did not happen at all."""
    if alert.test:
        return "health.test"
    return "health.recovered" if alert.over else f"health.{alert.state.value}"


def variables(alert: Alert) -> dict[str, str]:
    """The environment of a command."""
    return {
        f"CALLBOARD_ALERT_{name.upper()}": "" if value is None else str(value).replace("\0", "")
        for name, value in payload(alert).items()
        if name != "schema"
    }


def letter(alert: Alert) -> str:
    """The text of an e-mail."""
    from datetime import UTC, datetime

    def moment(at: int) -> str:
        return f"{datetime.fromtimestamp(at / 1000, tz=UTC):%Y-%m-%d %H:%M:%S} UTC"

    if alert.test:
        return f"{alert.text}.\n\nSent {moment(alert.at)}."
    lines = [alert.text, ""]
    if alert.company:
        lines.append(f"Company   {alert.company}")
    lines += [f"Check     {alert.check_id}", f"Since     {moment(alert.started_at)}"]
    if alert.ended_at is not None:
        lines.append(f"Until     {moment(alert.ended_at)}")
    if alert.advice:
        lines += ["", f"What to do: {alert.advice}"]
    return "\n".join((*lines, "", "callboard health shows everything that is watched."))


def _headline(alert: Alert) -> str:
    if alert.test:
        return "Test alert"
    word = "is up again" if alert.over else f"is {alert.state.value}"
    return clean_line(f"{alert.name} {word}")[:200]
