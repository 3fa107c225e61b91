"""`callboard message` as an operator runs it: the real program, its database, a service on a socket."""

from __future__ import annotations

import pytest

from tests.support.program import Ended, callboard
from tests.support.simulator import RunningSimulator


@pytest.fixture
def run(own_environment, simulator: RunningSimulator):
    service = {
        "COMMUNICATIONS_API_URL": f"{simulator.partners_url}/messages-gateway",
        "COMMUNICATIONS_API_KEY": simulator.key,
    }

    def call(*words: str, stdin: str = "") -> Ended:
        return callboard(own_environment, "message", *words, stdin=stdin, **service)

    assert callboard(own_environment, "company", "add", "acme").code == 0
    return call


def test_an_operator_sends_follows_and_sends_again(run):
    sent = run(
        "send", "acme", "sms", "+493012345678", "--body", "Hello", "--key", "k1", "--wait", "30", "--json"
    )
    assert sent.code == 0, sent
    message = sent.json["message"]
    assert (message["state"], message["simulated"], message["adapter"]) == (
        "delivered",
        False,
        "http-messages",
    )
    again = run("send", "acme", "sms", "+493012345678", "--body", "Hello", "--key", "k1", "--json")
    assert again.json["message"]["id"] == message["id"]
    refused = run("resend", message["id"][:8])
    assert refused.code == 2
    second = run("resend", message["id"][:8], "--yes", "--json")
    assert second.json["message"]["resend_of"] == message["id"]
    failed = run("send", "acme", "chat", "fail-me", "--wait", "30", stdin="Piped in\n")
    assert failed.code == 1
    assert "does not take messages" in failed.err
    listed = run("list", "acme", "--json").json["messages"]
    assert listed[0]["state"] == "failed"
    assert listed[0]["body"] == "Piped in"
    assert len(listed) == 3
    shown = run("show", message["id"][:8]).out
    assert "delivered" in shown
    assert "msg_000001" in shown
