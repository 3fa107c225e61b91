"""E-mail to a real server: what arrives, what is refused, what is certain."""

from __future__ import annotations

import asyncio
from email.headerregistry import Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import UsageError
from services.integrations.messages import Channel, MessageState
from services.integrations.messages.model import Order
from services.integrations.messages.smtp import MailServer, compose, parse_address, parse_sender
from services.integrations.model import IntegrationInfo, Kind, Resolved
from services.security import Secret
from tests.services.integrations.messages.conftest import World
from tests.services.integrations.messages.mail_server import PASSWORD, USER, Mailbox, mail_server

SENT, FAILED, UNKNOWN = MessageState.SENT, MessageState.FAILED, MessageState.UNKNOWN


async def add(world: World, box: Mailbox, *, secret: str = PASSWORD, **config) -> int:
    options = {
        "host": box.host,
        "port": str(box.port),
        "from": "Praxis Weber <front@example.com>",
        "user": USER,
        "ca_file": box.ca_file,
        **config,
    }
    return await world.add("smtp", secret=secret, **options)


async def mail(world: World, **more):
    given = {"subject": "Your appointment", "body": "See you at nine.\n.\nAnn", **more}
    return await world.messages.send_message(
        "acme", Channel.EMAIL, given.pop("to", "bob@example.org"), **given
    )


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_mail_arrives_encrypted(world, tmp_path, tls):
    with mail_server(tmp_path, tls=tls) as box:
        await add(world, box, tls=tls)
        row = await mail(world, subject="Grüße 你好", body="Schön\n.leading dot\n\nEnd")
    assert (row.state, row.recipient, row.sender) == (SENT, "bob@example.org", "front@example.com")
    assert not row.followed
    assert "mailbox" in row.remark
    (arrived,) = box.mails
    assert box.envelopes == [("front@example.com", ["bob@example.org"])]
    assert arrived["Message-ID"] == f"<{row.id}@example.com>" == row.provider_id
    assert str(arrived["Subject"]) == "Grüße 你好"
    assert str(arrived["From"]) == "Praxis Weber <front@example.com>"
    assert arrived["Auto-Submitted"] == "auto-generated"
    assert arrived.get_content().replace("\r\n", "\n") == "Schön\n.leading dot\n\nEnd\n"
    assert box.raw[0].isascii()


async def test_the_certificate_must_fit(world, tmp_path):
    with mail_server(tmp_path, names=("mail.example.com",)) as box:
        await add(world, box)
        row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert "certificate" in row.error.message
    assert box.mails == []


async def test_a_certificate_that_nobody_trusts_is_refused(world, tmp_path):
    with mail_server(tmp_path) as box:
        await add(world, box, ca_file="")
        row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert "cannot be trusted" in row.error.message
    assert "ca_file" in row.error.advice


async def test_without_encryption_no_password_is_given(world, tmp_path):
    with mail_server(tmp_path, tls="none", auth=False) as box:
        await add(world, box)
        row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert "does not offer encryption" in row.error.message
    assert box.mails == []


async def test_a_server_on_this_machine_may_go_without(world, tmp_path):
    with mail_server(tmp_path, tls="none", auth=False) as box:
        await add(world, box, tls="none", user="", secret="")
        assert (await mail(world)).state is SENT


def test_plain_text_leaves_no_machine():
    with pytest.raises(UsageError, match="readable by anyone"):
        MailServer.of({"host": "mail.example.com", "from": "a@b.example", "tls": "none"})


async def test_a_wrong_password(world, tmp_path):
    with mail_server(tmp_path) as box:
        await add(world, box, secret="something-else")
        row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert row.error.category == "authentication"
    assert "535" in row.error.message


@pytest.mark.parametrize(
    ("step", "reply", "category"),
    [
        ("rcpt", "550 5.1.1 No such user", "permanent"),
        ("rcpt", "450 4.2.0 Greylisted, come again", "transient"),
        ("mail", "553 5.7.1 Not your address", "permanent"),
        ("mail", "421 4.3.2 Shutting down", "transient"),
        ("data", "554 5.7.1 Looks like spam", "permanent"),
        ("data", "452 4.3.1 No space", "transient"),
    ],
)
async def test_a_refusal_is_certain_and_keeps_the_servers_words(world, tmp_path, step, reply, category):
    with mail_server(tmp_path) as box:
        box.refusals[step] = reply
        await add(world, box)
        row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert row.error.category == category
    assert reply[:3] in row.error.message
    assert row.error.advice
    assert box.mails == []


async def test_a_lost_answer_to_the_data_is_unknown(world, tmp_path):
    with mail_server(tmp_path) as box:
        box.silent = True
        await add(world, box)
        row = await mail(world)
    assert (row.state, row.followed) == (UNKNOWN, False)
    assert row.error is not None
    assert "ask the recipient" in row.error.advice
    assert len(box.mails) == 1


async def test_a_server_that_is_not_there(world, tmp_path):
    with mail_server(tmp_path) as box:
        pass
    await add(world, box)
    row = await mail(world)
    assert row.state is FAILED
    assert row.error is not None
    assert "nothing was sent" in row.error.message


async def test_a_server_that_says_nothing_is_given_up(world, tmp_path):
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    from services.integrations.messages.smtp import SmtpAdapter

    async with server:
        port = server.sockets[0].getsockname()[1]
        config = {"host": "127.0.0.1", "port": port, "from": "a@example.com"}
        adapter = SmtpAdapter(
            IntegrationInfo(1, None, "", Kind.MESSAGES, "smtp", "mail", config=config),
            Secret(""),
            world.services.policies.of("mail"),
            world.clock,
            timeout=0.1,
        )
        order = Order("1", "acme", Channel.EMAIL, "b@example.org", "s", "b")
        with pytest.raises(Exception, match="did not answer in time") as caught:
            await adapter.send(order)
        assert caught.value.code == "unreachable"


async def test_probing_logs_in_and_sends_nothing(world, tmp_path):
    with mail_server(tmp_path) as box:
        integration = await add(world, box)
        info = await world.services.integrations.get(integration)
        assert await world.messages.probe(Resolved(info, Secret(PASSWORD))) == "logged in"
    assert box.mails == []


# -- what a mail may hold -------------------------------------------------------------------------

SERVER = MailServer.of({"host": "mail.example.com", "from": "Front <front@example.com>"})


@given(st.text(max_size=60), st.text(max_size=200))
def test_no_header_can_be_smuggled_in(subject, body):
    """Whatever passes the checks makes a mail with our headers and no other."""
    subject = "".join(char for char in subject if char.isprintable()) or "x"
    body = "".join(char for char in body if not 0xD800 <= ord(char) <= 0xDFFF)
    mail = compose(
        Order("7", "acme", Channel.EMAIL, "b@example.org", subject, body), SERVER, 1_790_000_000_000
    )
    head = mail.as_bytes().partition(b"\r\n\r\n")[0]
    names = [
        line.partition(b":")[0].lower() for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))
    ]
    assert sorted(names) == sorted([
        b"from", b"to", b"subject", b"date", b"message-id", b"auto-submitted", b"content-type",
        b"content-transfer-encoding", b"mime-version",
    ])  # fmt: skip


@pytest.mark.parametrize("subject", ["a\r\nBcc: x@example.org", "a\nb", "a\rb", "a\x00b", "a\u2028b"])
async def test_a_subject_of_several_lines_is_refused(world, tmp_path, subject):
    await add(world, Mailbox(port=25))
    with pytest.raises(UsageError):
        await mail(world, subject=subject)
    assert await world.messages.list() == []


@pytest.mark.parametrize(
    "address",
    [
        "", "bob", "@example.org", "bob@", "bob@@example.org", "a@b.example, c@d.example",
        "Bob <b@c.example>", "b@c.example\r\nRCPT TO:<x@y.example>", "b c@example.org", "b@exa mple.org",
        "bö@example.org", '"b"@example.org', "b@" + "a" * 300 + ".example",
    ],
)  # fmt: skip
def test_no_address(address):
    with pytest.raises(UsageError):
        parse_address(address)


def test_addresses():
    assert parse_address(" Bob@Bücher.Example ").addr_spec == "Bob@xn--bcher-kva.example"
    assert parse_sender("Praxis Weber <front@example.com>") == Address("Praxis Weber", "front", "example.com")
    with pytest.raises(UsageError):
        parse_sender("Praxis\r\nBcc: x <front@example.com>")
