"""The protobuf messages of LiveKit's signalling; the bytes were made with the vendor's `livekit-protocol`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from services.simulator.livekit_wire import decode, encode

JOIN = (
    "0a340a110a02524d120b726f6f6d5f636f6e765f311a1c0a02504112076167656e742d3122090a0254521a016148026801"
    "700458ac02"
)


def test_what_is_written_is_what_the_vendor_writes() -> None:
    agent = {
        "sid": "PA", "identity": "agent-1", "tracks": [{"sid": "TR", "name": "a", "source": 2}],
        "is_publisher": True, "kind": 4,
    }  # fmt: skip
    join = {"room": {"sid": "RM", "name": "room_conv_1"}, "other_participants": [agent], "ping_interval": 300}
    assert encode("SignalResponse", {"join": join}).hex() == JOIN


@pytest.mark.parametrize(
    ("message", "given_hex", "fields"),
    [
        # with fields that the table does not have: disable_dtx, stream, audio_features
        ("SignalRequest", "22150a02633112036d6963380140027a01738a01020102",
         {"add_track": {"cid": "c1", "name": "mic", "source": 2}}),
        ("SignalRequest", "1a060a027b7d1001", {"trickle": {"candidateInit": "{}", "target": 1}}),
        ("SignalRequest", "82010d08fbffffffffffffffff011003", {"ping_req": {"timestamp": -5, "rtt": 3}}),
        ("SpeakersChanged", "0a0b0a025041150000003f1801", {"speakers": [{"sid": "PA", "active": 1}]}),
        ("DataPacket", "120b12030068692201742a0175",
         {"user": {"payload": b"\0hi", "topic": "t", "participant_identity": "u"}}),
    ],
)  # fmt: skip
def test_what_the_vendor_writes_is_read(message: str, given_hex: str, fields: dict[str, object]) -> None:
    assert decode(message, bytes.fromhex(given_hex)) == fields


@pytest.mark.parametrize("wrong", ["22ff", "0a", "1a060a027b", "82010d08ffffffffffffffffffffff01", "0b00"])
def test_broken_messages_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode("SignalRequest", bytes.fromhex(wrong))


def test_a_field_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="wire type"):
        decode("SignalRequest", bytes.fromhex("0801"))


@given(some.binary(max_size=200), some.text(max_size=50), some.integers(-(2**63), 2**63 - 1))
def test_whatever_is_written_is_read_again(payload: bytes, text: str, number: int) -> None:
    packet = {"user": {"payload": payload, "topic": text}}
    assert decode("DataPacket", encode("DataPacket", packet)) == packet
    ping = {"ping_req": {"timestamp": number}}
    assert decode("SignalRequest", encode("SignalRequest", ping)) == ping


@given(some.binary(max_size=300))
def test_noise_is_read_or_refused(noise: bytes) -> None:
    try:
        decode("SignalRequest", noise)
    except ValueError:
        return
