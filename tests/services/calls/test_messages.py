"""Messages and their JSON: every kind goes out and comes back the same."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.calls import messages
from services.calls.messages import (
    AgentSpeech,
    Ended,
    Notice,
    ToolStarted,
    UserSpeech,
    decode,
    encode,
)
from services.calls.model import CallState, EndReason

KINDS = list(messages._KINDS.values())
TEXT = st.text(max_size=40)
VALUES = {
    "str": TEXT,
    "bool": st.booleans(),
    "int": st.integers(0, 10**9),
    "float": st.floats(0, 10**6),
    "int | None": st.none() | st.integers(0, 10**9),
    "float | None": st.none() | st.floats(0, 10**6),
    "CallState": st.sampled_from(CallState),
    "EndReason": st.sampled_from(EndReason),
    "Mapping[str, Any]": st.dictionaries(TEXT, TEXT | st.integers(), max_size=3),
    "Mapping[str, float]": st.dictionaries(TEXT, st.floats(0, 1000), max_size=3),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_message_survives_its_json(kind):
    fields = {each.name: VALUES[str(each.type)] for each in dataclasses.fields(kind)}

    @given(st.fixed_dictionaries(fields))
    def check(values):
        message = kind(**values)
        assert decode(json.loads(json.dumps(encode(message)))) == message

    check()


def test_kinds_are_named_and_distinct():
    assert all(kind.kind for kind in KINDS)
    assert len({kind.kind for kind in KINDS}) == len(KINDS)


def test_an_unknown_kind_is_no_message():
    assert decode({"kind": "hologram", "text": "hello"}) is None
    assert decode({}) is None
    assert decode({"kind": "ended", "reason": "abducted"}) is None


@pytest.mark.parametrize(
    "message",
    [
        UserSpeech("my secret"),
        AgentSpeech("my secret"),
        ToolStarted("t", "look_up", {"name": "my secret"}),
        messages.ToolEnded("t", "my secret"),
        messages.AgentCorrected("my secret", "my secret"),
        messages.Typed("my secret"),
        messages.Informed("my secret"),
        messages.Marked("my secret"),
        messages.ApprovalWanted("t", "look_up", {"name": "my secret"}),
    ],
    ids=lambda message: message.kind,
)
def test_without_texts_nothing_said_is_left(message):
    data = encode(message, texts=False)
    assert "my secret" not in json.dumps(data)
    assert decode(data) is not None


def test_the_end_keeps_its_reason_without_texts():
    assert encode(Ended(EndReason.BUSY, "the line"), texts=False)["detail"] == "the line"
    assert "text" not in encode(Notice("heard: my secret"), texts=False)
