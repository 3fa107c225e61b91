"""A real mail server (aiosmtpd) on loopback, with a certificate made for it, and refusals on demand."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as SMTP_RULES
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "ann@example.com", "mail-canary-7d1f52"


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A self-made certificate for these names and addresses, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    known: list[x509.GeneralName] = []
    for name in names:
        try:
            known.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            known.append(x509.DNSName(name))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(known), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{names[0]}.pem", folder / f"{names[0]}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return cert_file, key_file


@dataclass
class Mailbox:
    """What came in, and what is refused: a reply by step (`mail`, `rcpt`, `data`)."""

    host: str = "127.0.0.1"
    port: int = 0
    ca_file: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    mails: list[EmailMessage] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    silent: bool = False
    """Breaks the connection off instead of answering the data."""

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ):
        if "mail" in self.refusals:
            return self.refusals["mail"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ):
        if "rcpt" in self.refusals:
            return self.refusals["rcpt"]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope):
        if "data" in self.refusals:
            return self.refusals["data"]
        content = bytes(envelope.original_content or b"")
        self.raw.append(content)
        self.mails.append(message_from_bytes(content, policy=SMTP_RULES))
        self.envelopes.append((envelope.mail_from or "", list(envelope.rcpt_tos)))
        if self.silent:
            server.transport.abort()
        return "250 Queued as 4711"


def _checked(server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any) -> AuthResult:
    fits = isinstance(given, LoginPassword) and (given.login, given.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=fits, handled=False)


@contextmanager
def mail_server(
    folder: Path, *, tls: str = "starttls", names: tuple[str, ...] = ("127.0.0.1",), auth: bool = True
) -> Iterator[Mailbox]:
    """Run one. `tls`: starttls, implicit or none."""
    box = Mailbox()
    options: dict[str, Any] = {"hostname": box.host, "port": 0}
    if tls != "none":
        cert_file, key_file = certificate(folder, *names)
        box.ca_file = str(cert_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_file, key_file)
        if tls == "implicit":
            options["ssl_context"] = context
        else:
            options |= {"tls_context": context, "require_starttls": True}
    if auth:
        options |= {
            "authenticator": _checked,
            "auth_required": True,
            "auth_require_tls": tls == "starttls",
        }
    controller = _Controller(box, **options)
    controller.start()
    try:
        box.port = controller.server.sockets[0].getsockname()[1]
        yield box
    finally:
        controller.stop()


class _Controller(Controller):
    """Listens on a port that the system chooses; the usual check asks the port it was told."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
