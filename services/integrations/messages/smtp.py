"""E-mail over SMTP: STARTTLS or TLS from the first byte, certificates verified, one connection a message.

Nothing but TLS leaves this machine. A message counts as sent once the server answered the end of its data;
what a mail server does with it afterwards, it does not tell: no delivery report is asked for, since most
servers ignore the wish and those that do not answer by another e-mail.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_RULES
from email.utils import format_datetime, parseaddr
from typing import TYPE_CHECKING, Any, Final

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.http.addresses import is_loopback
from services.integrations.messages.model import MessageRow, MessageState, Order, Report
from services.integrations.messages.port import cannot_tell, one_line, require_text, subject_of
from services.integrations.model import IntegrationInfo
from services.resilience import Attempt, Policy
from services.security import Secret
from services.text import clean_line

if TYPE_CHECKING:
    from aiosmtplib import SMTP

REMARK: Final = "The mail server took it over; if it comes back, it does so to the sender's mailbox"
"""Mail servers tell what became of a mail by a mail (RFC 3464), and mailboxes are not read here."""
TLS_WAYS: Final = ("starttls", "implicit", "none")
_PORTS: Final = {"starttls": 587, "implicit": 465, "none": 25}
# Seven bits only: the message may pass servers that know no other.
_RULES: Final = SMTP_RULES.clone(cte_type="7bit")


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mail is handed in, and as whom."""

    host: str
    port: int
    tls: str
    sender: Address
    user: str = ""
    reply_to: Address | None = None
    ca_file: str = ""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> MailServer:
        """Read an integration's options. Raises UsageError for what cannot be."""
        host = one_line(str(config.get("host", "")), "the name of a mail server").rstrip(".")
        tls = str(config.get("tls") or "starttls").strip().lower()
        if tls not in TLS_WAYS:
            raise UsageError(
                f"{clean_line(tls)!r} is no way of encryption",
                advice="tls is starttls, implicit or none",
                code="bad_option",
            )
        if tls == "none" and not is_loopback(host):
            raise UsageError(
                f"E-mail for {host} would travel readable by anyone on the way",
                advice="Use tls=starttls or tls=implicit; none is for a server on this machine only",
                code="bad_option",
            )
        port = str(config.get("port") or _PORTS[tls])
        if not port.isdecimal() or not 1 <= int(port) <= 65_535:
            raise UsageError(
                f"{clean_line(port)!r} is no port", advice="It is 587, 465 or 25 as a rule", code="bad_option"
            )
        answers = str(config.get("reply_to") or "")
        return cls(
            host,
            int(port),
            tls,
            parse_sender(str(config.get("from", ""))),
            str(config.get("user") or "").strip(),
            parse_sender(answers) if answers else None,
            str(config.get("ca_file") or ""),
        )


def parse_sender(text: str) -> Address:
    """`name@example.com` or `Name <name@example.com>`. Raises UsageError."""
    name, address = parseaddr(one_line(text, "an e-mail address", 400))
    plain = parse_address(address)
    return Address(display_name=name, username=plain.username, domain=plain.domain)


def parse_address(text: str) -> Address:
    """One address without a name, its domain in ASCII (IDNA). Raises UsageError."""
    plain = text.strip()
    local, at, domain = plain.rpartition("@")
    try:
        host = domain.encode("idna").decode("ascii").lower() if domain else ""
        if at and local.isascii() and host and not any(char in plain for char in ' \t\r\n,;<>"()[]\\'):
            return Address(addr_spec=f"{local}@{host}")
    except (UnicodeError, MessageError, ValueError, IndexError):
        pass
    raise UsageError(
        f"{clean_line(text)[:80]!r} is not an e-mail address",
        advice="Give one address such as name@example.com",
        code="bad_recipient",
    )


def compose(order: Order, server: MailServer, now: int) -> EmailMessage:
    """The e-mail. Its Message-ID follows from the message's id, so that a copy is known as one."""
    import datetime as dt

    mail = EmailMessage(policy=_RULES)
    mail["From"] = server.sender
    mail["To"] = parse_address(order.to)
    if server.reply_to is not None:
        mail["Reply-To"] = server.reply_to
    mail["Subject"] = order.subject
    mail["Date"] = format_datetime(dt.datetime.fromtimestamp(now // 1000, dt.UTC))
    mail["Message-ID"] = f"<{order.id}@{server.sender.domain}>"
    # So that vacation notes and the like do not answer a machine.
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(order.body, charset="utf-8")
    return mail


class SmtpAdapter:
    """One mail server. `timeout`: seconds for each step, and half of what the whole may take."""

    def __init__(
        self, info: IntegrationInfo, password: Secret, policy: Policy, clock: Clock, *, timeout: float = 30.0
    ) -> None:
        self.server = MailServer.of(info.config)
        self._password = password
        self._policy = policy
        self._clock = clock
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"SmtpAdapter({self.server.host}:{self.server.port})"

    async def checked(self, order: Order) -> Order:
        require_text(order)
        subject = order.subject.strip()
        if not subject:
            raise UsageError("An e-mail needs a subject", advice="Give it with --subject", code="no_subject")
        one_line(subject, "a subject", 500)
        if any(0xD800 <= ord(char) <= 0xDFFF for char in order.body) or "\0" in order.body:
            raise UsageError(
                "The text holds characters that no e-mail can carry",
                advice="Give plain text in UTF-8",
                code="bad_body",
            )
        return replace(order, to=parse_address(order.to).addr_spec, subject=subject)

    async def send(self, order: Order) -> Report:
        mail = compose(order, self.server, self._clock.now())
        raw = mail.as_bytes(policy=_RULES)

        async def hand_in(attempt: Attempt) -> str:
            return await self._hand_in(order, raw)

        said = await self._policy.run(hand_in, subject=subject_of(order), write=True)
        return Report(
            MessageState.SENT,
            provider_id=str(mail["Message-ID"]),
            sender=self.server.sender.addr_spec,
            detail=f"{REMARK} ({said})" if said else REMARK,
        )

    async def look(self, message: MessageRow) -> Report | None:
        return None

    async def find(self, message: MessageRow, taken: frozenset[str]) -> Report | None:
        raise cannot_tell("A mail server")

    async def probe(self) -> str:
        """Greets, encrypts and logs in, as for a message, and leaves: free, nothing is handed in."""

        async def greet(attempt: Attempt) -> str:
            try:
                async with self._session():
                    return "logged in" if self.server.user else "greeted"
            except TimeoutError as error:
                failure = explain(self.server, error, "the connection", handing_over=False)
            raise failure

        return await self._policy.run(greet, attempts=1)

    async def aclose(self) -> None:
        """Nothing stays open between messages."""

    async def _hand_in(self, order: Order, raw: bytes) -> str:
        handing_over = False
        try:
            async with self._session() as client:
                await self._step(client.mail(self.server.sender.addr_spec), "the sender")
                await self._step(client.rcpt(order.to), "the recipient")
                handing_over = True
                said = await self._step(client.data(raw), "the message", handing_over=True)
                return clean_line(str(said.message))[:200]
        except TimeoutError as error:  # of the whole; every step has one of its own
            failure = explain(self.server, error, "the message", handing_over=handing_over)
        raise failure

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[SMTP]:
        """A connection over which mail may be handed in."""
        from aiosmtplib import SMTP

        server = self.server
        context = await asyncio.to_thread(self._trust) if server.tls != "none" else None
        client = SMTP(
            hostname=server.host,
            port=server.port,
            timeout=self._timeout,
            use_tls=server.tls == "implicit",
            start_tls=False,
            tls_context=context,
            local_hostname="[127.0.0.1]",
        )
        try:
            async with asyncio.timeout(2 * self._timeout):
                await self._step(client.connect(), "the connection")
                if server.tls == "starttls":
                    await self._step(self._encrypt(client, context), "encryption")
                if server.user:
                    await self._step(self._log_in(client), "the login")
                yield client
                with suppress(Exception):
                    await client.quit()  # its answer changes nothing
        finally:
            client.close()

    async def _encrypt(self, client: SMTP, context: ssl.SSLContext | None) -> object:
        await client.ehlo()
        if not client.supports_extension("starttls"):
            # Also what somebody on the way does who wants to read the password.
            raise ServiceError(
                f"{self.server.host} does not offer encryption (STARTTLS); nothing was sent",
                category=Category.PERMANENT,
                advice="Check the port; 465 needs tls=implicit",
                code="tls",
            )
        return await client.starttls(tls_context=context)

    async def _log_in(self, client: SMTP) -> object:
        """In the one best way: servers count every failed attempt."""
        if client.is_ehlo_or_helo_needed:
            await client.ehlo()
        user, password = self.server.user, self._password.reveal()
        for name, way in (
            ("plain", client.auth_plain),
            ("login", client.auth_login),
            ("cram-md5", client.auth_crammd5),
        ):
            if name in client.server_auth_methods:
                return await way(user, password)
        raise ServiceError(
            f"{self.server.host} takes no passwords on this connection",
            category=Category.AUTHENTICATION,
            advice="Check port and tls; without an account leave the option user out",
            code="no_login",
        )

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.server.ca_file or None)
        except (OSError, ssl.SSLError):
            failure = ServiceError(
                "The file with the certificates to trust cannot be read",
                advice="Check the option ca_file of the integration",
                code="certificate",
            )
        raise failure

    async def _step(self, work: Any, what: str, *, handing_over: bool = False) -> Any:
        """One step, its failure explained. Only while the message is handed over the outcome is unsure."""
        try:
            return await work
        except ServiceError:
            raise
        except Exception as error:
            failure = explain(self.server, error, what, handing_over=handing_over)
        # Raised here, so that no exception of a library, which may hold the password, hangs on it.
        raise failure


def explain(server: MailServer, error: Exception, what: str, *, handing_over: bool) -> ServiceError:
    """What a failed step means. Codes of what certainly did not happen are certain for the effect, too."""
    import aiosmtplib

    place = f"{server.host}:{server.port}"
    causes = list(_causes(error))
    refused = next((each for each in causes if isinstance(each, aiosmtplib.SMTPResponseException)), None)
    if refused is not None:
        return _refusal(server, refused.code, str(refused.message), what)
    if handing_over:
        return ServiceError(
            f"{place} did not answer after it was given the message",
            category=Category.TIMEOUT,
            advice="Ask the recipient whether it arrived before sending it again",
            code="answer_lost",
        )
    for each in causes:
        if isinstance(each, ssl.SSLCertVerificationError):
            why = clean_line(str(getattr(each, "verify_message", "") or "not trusted"))
            return ServiceError(
                f"The certificate of {place} cannot be trusted: {why}",
                advice="Check the host name and the clock; for a certificate of your own set ca_file",
                code="certificate",
            )
    if any(isinstance(each, ssl.SSLError) for each in causes):
        return ServiceError(
            f"No secure connection (TLS) to {place} came about",
            advice="Port 465 needs tls=implicit, port 587 tls=starttls",
            code="tls",
        )
    if any(isinstance(each, TimeoutError) for each in causes):
        return ServiceError(
            f"{place} did not answer in time; nothing was sent",
            category=Category.TIMEOUT,
            advice="Check the network and the port",
            code="unreachable",
        )
    return ServiceError(
        f"{place} cannot be reached for {what}; nothing was sent",
        category=Category.TRANSIENT,
        advice="Check host and port, and that the server runs",
        code="unreachable",
    )


def _refusal(server: MailServer, reply: int, said: str, what: str) -> ServiceError:
    """A mail server's no. 4xx means not now, 5xx not at all (RFC 5321, 4.2.1)."""
    because = clean_line(said)[:200].rstrip(".")
    text = f"{server.host} refused {what}: {reply} {because}".rstrip()
    if reply in (530, 534, 535, 538) or what == "the login":
        if reply < 500:
            return ServiceError(
                text, category=Category.TRANSIENT, advice="Try again in a few minutes", code="not_taken"
            )
        return ServiceError(
            text,
            category=Category.AUTHENTICATION,
            advice="Check user and password; many providers want a password made for this program",
            code="wrong_key",
        )
    if reply < 500:
        return ServiceError(
            text,
            category=Category.TRANSIENT,
            advice="The server takes it later: send it again in a few minutes",
            code="not_taken",
        )
    advice: Mapping[str, str] = {
        "the recipient": "Check the address of the recipient",
        "the sender": "Use a sender that this account may use",
    }
    return ServiceError(
        text,
        advice=advice.get(what, "Correct what the server names"),
        code="refused",
    )


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:
        found.append(current)
        current = current.__cause__ or current.__context__
    return found
