"""Activity: runs, their outcomes, messages, the audit log."""

from __future__ import annotations

from typing import Any

from services.agents import AuditRow
from services.events import MessagesChanged
from services.integrations.messages import InboundRow, MessageEventRow, MessageRow
from services.integrations.messages.model import Channel, MessageState
from services.model import ErrorInfo, Outcome, OutcomeRow, Provider, RunStatus, SyncRunInfo
from tests.support.console import console, opened, screen_text, settled, until
from tests.support.fake_services import HOUR, NOON, FakeServices


def with_history() -> FakeServices:
    services = FakeServices()
    counts = {"unchanged": 30, "failed": 1}
    services.agents.run_rows = [
        SyncRunInfo("r2", "all", "schedule", "", True, RunStatus.PARTIAL, NOON, NOON + 4200, counts, 44),
        SyncRunInfo(
            "r1", "all", "operator", "", False, RunStatus.FAILED, NOON - HOUR, NOON, {}, 1, "Retell is down"
        ),
    ]
    error = ErrorInfo("timeout", "Retell did not answer", "Try again")
    services.agents.outcome_rows["r2"] = [
        OutcomeRow("acme", Provider.RETELL, "agent_1", "Reception", Outcome.UNCHANGED, detail="nothing new"),
        OutcomeRow("acme", Provider.RETELL, "agent_2", "Booking", Outcome.FAILED, error),
    ]
    services.agents.audit_rows = [AuditRow(NOON, "maria", "connection.rotate", "acme, retell", "new key")]
    return services


async def test_runs_outcomes_and_back() -> None:
    async with opened(with_history(), (120, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "◆ partial" in screen_text(pilot))
        text = screen_text(pilot)
        assert "all, forced" in text
        assert "1 failed, 30 unchanged" in text
        assert "4.2 s" in text
        assert "Retell is down" in text
        await pilot.press("enter")
        await until(pilot, lambda: "Retell did not answer. Try again" in screen_text(pilot))
        await pilot.press("down", "y")
        assert "Booking" in console(pilot).copied
        await pilot.press("escape")
        await until(pilot, lambda: "◆ partial" in screen_text(pilot))
        await pilot.press("escape")
        assert len(pilot.app.screen_stack) == 1


async def test_the_audit_log() -> None:
    async with opened(with_history(), (120, 24)) as pilot:
        await pilot.press("5", "tab", "tab")
        await until(pilot, lambda: "connection.rotate" in screen_text(pilot))
        assert "maria" in screen_text(pilot)


async def test_nothing_has_happened_yet() -> None:
    async with opened(FakeServices()) as pilot:
        await pilot.press("5")
        await settled(pilot)
        await until(pilot, lambda: "No sync has run yet" in screen_text(pilot))
        await pilot.press("1")
        assert len(pilot.app.screen_stack) == 1


LONG = (
    "Retell answered 500 to the second page of agents, three times in a row, and then said no more than this"
)


async def test_what_a_row_has_no_room_for_stands_below_and_opens() -> None:
    services = with_history()
    error = ErrorInfo("server", LONG, "Wait for the next sync, and write to its support if it stays")
    row = OutcomeRow("acme", Provider.RETELL, "agent_2", "Booking", Outcome.FAILED, error)
    services.agents.outcome_rows["r2"] = [row]
    async with opened(services, (80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "took 4.2 s · requests 44" in " ".join(screen_text(pilot).split()))
        await pilot.press("enter")
        await until(
            pilot, lambda: "more than this. Wait for the next" in " ".join(screen_text(pilot).split())
        )
        height = pilot.app.screen.query_one("#below").size.height
        await pilot.press("enter")
        await until(pilot, lambda: "One line of the sync run" in screen_text(pilot))
        assert "if it stays" in " ".join(screen_text(pilot).split())
        await pilot.press("escape", "escape", "down")
        await until(pilot, lambda: "Retell is down" in screen_text(pilot).splitlines()[-4])
        assert pilot.app.screen.query_one("#below").size.height == height


async def test_the_audit_log_at_80_columns_says_who_did_what_to_what() -> None:
    services = with_history()
    more = [
        AuditRow(NOON, "root", "agent.updated", f"acme, Reception {number} (agent_{number})", "sync 439c")
        for number in range(3)
    ]
    services.agents.audit_rows += more
    async with opened(services, (80, 24)) as pilot:
        await pilot.press("5", "tab", "tab")
        await until(pilot, lambda: "agent.updated" in screen_text(pilot))
        lines = [line for line in screen_text(pilot).splitlines() if "agent.updated" in line]
        assert [f"Reception {number}" in line and "root" in line for number, line in enumerate(lines)] == [
            True
        ] * 3


# Messages


def sent(number: int, **more: Any) -> MessageRow:
    facts: dict[str, Any] = {
        "id": f"{number:032x}",
        "company_id": 1,
        "company": "acme",
        "channel": Channel.SMS,
        "adapter": "twilio-sms",
        "integration_id": 1,
        "integration": "Desk SMS",
        "agent_row": None,
        "recipient": f"+4930123456{number:02d}",
        "sender": "+15005550006",
        "subject": "",
        "body": f"Your table {number} is ready",
        "template": None,
        "state": MessageState.DELIVERED,
        "remark": "",
        "resend_of": "",
        "simulated": False,
        "provider_id": f"SM{number}",
        "error": None,
        "created_at": NOON + number,
        "updated_at": NOON + number,
        "next_look_at": None,
    }
    return MessageRow(**{**facts, **more})


def with_messages() -> FakeServices:
    services = FakeServices()
    error = ErrorInfo("permanent", "The number is not in service", "Check the number")
    services.messages.sent = [
        sent(3, simulated=True),
        sent(2, state=MessageState.FAILED, error=error, channel=Channel.WHATSAPP),
        sent(1),
    ]
    services.messages.inbound = [
        InboundRow(
            "b" * 32, 1, "acme", Channel.WHATSAPP, 2, "WhatsApp", "wamid.1", "+4915112345678", "US.1", "Zoë",
            "+15551234567", "text", "Can I come at seven?", "", NOON + 4, NOON + 5, None,
        )
    ]  # fmt: skip
    services.messages.steps[sent(2).id] = [
        MessageEventRow(NOON + 2, MessageState.QUEUED, "send", ""),
        MessageEventRow(NOON + 9, MessageState.FAILED, "report", "The number is not in service"),
    ]
    return services


async def test_messages_that_went_out_and_came_in() -> None:
    services = with_messages()
    async with opened(services, (140, 24)) as pilot:
        await pilot.press("5", "tab")
        await until(pilot, lambda: "Can I come at seven?" in screen_text(pilot))
        lines = screen_text(pilot).splitlines()
        order = ["from +4915112345678", "to +493012345603", "to +493012345602", "to +493012345601"]
        places = [next(n for n, line in enumerate(lines) if who in line) for who in order]
        assert places == sorted(places)
        assert "delivered (simulated)" in lines[places[1]]
        assert "The number is not in service" in lines[places[2]]
        assert "(simulated)" not in lines[places[3]]
        # A new one is there as soon as it is told of.
        services.messages.sent.insert(0, sent(7, state=MessageState.SENDING))
        services.bus.publish(MessagesChanged(("x",)))
        await until(pilot, lambda: "to +493012345607" in screen_text(pilot))
        await pilot.press("tab")
        await until(pilot, lambda: "Nothing has been changed yet" in screen_text(pilot))
        await pilot.press("tab", "escape")
        assert len(pilot.app.screen_stack) == 1


async def test_enter_opens_all_of_a_message() -> None:
    async with opened(with_messages(), (80, 24)) as pilot:
        await pilot.press("5", "tab")
        await until(pilot, lambda: "from +4915112345678" in screen_text(pilot))
        await pilot.press("down", "down")
        await until(pilot, lambda: "Check the number" in " ".join(screen_text(pilot).split()))
        await pilot.press("enter")
        await until(pilot, lambda: "A message that was sent" in screen_text(pilot))
        text = " ".join(screen_text(pilot).split())
        assert "failed report" in text
        assert "Your table 2 is ready" in text
        await pilot.press("escape", "g", "enter")
        await until(pilot, lambda: "A message that came in" in screen_text(pilot))
        assert "calls itself" in screen_text(pilot)


async def test_every_list_is_filtered_by_words_and_columns() -> None:
    async with opened(with_messages(), (120, 24)) as pilot:
        await pilot.press("5", "tab")
        await until(pilot, lambda: "from +4915112345678" in screen_text(pilot))
        await pilot.press("/", *"state:failed")
        await until(pilot, lambda: "to +493012345601" not in screen_text(pilot))
        assert "to +493012345602" in screen_text(pilot)
        await pilot.press("enter")
        assert "/ state:failed" in screen_text(pilot)
        await pilot.press("/", *" nobody", "enter")
        await until(pilot, lambda: "Nothing here matches" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "to +493012345601" in screen_text(pilot))
        await pilot.press("/", *"colour:red")
        await until(pilot, lambda: "There is no column colour" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "There is no column" not in screen_text(pilot))
        assert "to +493012345601" in screen_text(pilot)
