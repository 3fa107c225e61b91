"""The few protobuf messages of LiveKit's signalling that the stand-in speaks, as plain dictionaries.

Field numbers are those of the vendor's published `livekit_rtc.proto` and `livekit_models.proto`. Fields that
are not in the tables are skipped on reading, as protobuf asks of every reader.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Fields = dict[str, Any]

AUDIO = 0
MICROPHONE = 2
JOINED, ACTIVE, DISCONNECTED = 1, 2, 3
AGENT_KIND = 4
PUBLISHER, SUBSCRIBER = 0, 1
ROOM_CLOSED, SERVER_SHUTDOWN, JOIN_FAILURE = 10, 3, 7

# Name of a field → number and type: `int`, `text`, `bytes`, or a message's name; `*` marks a repeated field.
_TABLES: dict[str, dict[str, tuple[int, str]]] = {
    "SignalRequest": {
        "offer": (1, "SessionDescription"), "answer": (2, "SessionDescription"), "trickle": (3, "Trickle"),
        "add_track": (4, "AddTrack"), "mute": (5, "Mute"), "leave": (8, "Leave"), "ping": (14, "int"),
        "ping_req": (16, "Ping"),
    },
    "SignalResponse": {
        "join": (1, "Join"), "answer": (2, "SessionDescription"), "offer": (3, "SessionDescription"),
        "trickle": (4, "Trickle"), "update": (5, "ParticipantUpdate"),
        "track_published": (6, "TrackPublished"), "leave": (8, "Leave"),
        "speakers_changed": (10, "SpeakersChanged"), "pong": (18, "int"), "pong_resp": (20, "Pong"),
    },
    "Join": {
        "room": (1, "Room"), "participant": (2, "Participant"), "other_participants": (3, "Participant*"),
        "server_version": (4, "text"), "subscriber_primary": (6, "int"), "ping_timeout": (10, "int"),
        "ping_interval": (11, "int"), "server_info": (12, "ServerInfo"),
    },
    "SessionDescription": {"type": (1, "text"), "sdp": (2, "text"), "id": (3, "int")},
    "Trickle": {"candidateInit": (1, "text"), "target": (2, "int"), "final": (3, "int")},
    "AddTrack": {"cid": (1, "text"), "name": (2, "text"), "type": (3, "int"), "source": (8, "int")},
    "Mute": {"sid": (1, "text"), "muted": (2, "int")},
    "TrackPublished": {"cid": (1, "text"), "track": (2, "Track")},
    "ParticipantUpdate": {"participants": (1, "Participant*")},
    "SpeakersChanged": {"speakers": (1, "Speaker*")},
    "Speaker": {"sid": (1, "text"), "active": (3, "int")},
    "Leave": {"can_reconnect": (1, "int"), "reason": (2, "int"), "action": (3, "int")},
    "Ping": {"timestamp": (1, "int"), "rtt": (2, "int")},
    "Pong": {"last_ping_timestamp": (1, "int"), "timestamp": (2, "int")},
    "Room": {"sid": (1, "text"), "name": (2, "text"), "num_participants": (9, "int")},
    "Participant": {
        "sid": (1, "text"), "identity": (2, "text"), "state": (3, "int"), "tracks": (4, "Track*"),
        "name": (9, "text"), "permission": (11, "Permission"), "is_publisher": (13, "int"),
        "kind": (14, "int"), "disconnect_reason": (16, "int"),
    },
    "Permission": {"can_subscribe": (1, "int"), "can_publish": (2, "int"), "can_publish_data": (3, "int")},
    "Track": {
        "sid": (1, "text"), "type": (2, "int"), "name": (3, "text"), "muted": (4, "int"),
        "source": (9, "int"), "mime_type": (11, "text"),
    },
    "ServerInfo": {"edition": (1, "int"), "version": (2, "text"), "protocol": (3, "int")},
    "DataPacket": {
        "kind": (1, "int"), "user": (2, "UserPacket"), "participant_identity": (4, "text"),
        "participant_sid": (17, "text"),
    },
    "UserPacket": {
        "participant_sid": (1, "text"), "payload": (2, "bytes"), "topic": (4, "text"),
        "participant_identity": (5, "text"),
    },
}  # fmt: skip
_NAMES = {
    message: {number: (name, kind) for name, (number, kind) in fields.items()}
    for message, fields in _TABLES.items()
}


def encode(message: str, fields: Fields) -> bytes:
    """`fields` as the protobuf message `message`. Raises KeyError for a name that is not in its table."""
    out = bytearray()
    for name, value in fields.items():
        number, kind = _TABLES[message][name]
        for item in value if kind.endswith("*") else (value,):
            if kind == "int":
                out += _varint(number << 3) + _varint(int(item))
                continue
            if kind == "text":
                data = str(item).encode()
            else:
                data = bytes(item) if kind == "bytes" else encode(kind.rstrip("*"), item)
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(out)


def decode(message: str, data: bytes) -> Fields:
    """The known fields that are present. Raises ValueError when `data` is no protobuf message."""
    found: Fields = {}
    for number, value in _walk(data):
        name, kind = _NAMES[message].get(number, ("", ""))
        if not name:
            continue
        if isinstance(value, int) != (kind == "int"):
            raise ValueError(f"{message}.{name} has the wrong wire type")
        if isinstance(value, int) or kind == "bytes":
            found[name] = value
        elif kind == "text":
            found[name] = value.decode()
        elif kind.endswith("*"):
            found.setdefault(name, []).append(decode(kind[:-1], value))
        else:
            found[name] = decode(kind, value)
    return found


def _walk(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values; fixed-size numbers are passed on as bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            length, at = _read_varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} is not used")
        if at + length > len(data):
            raise ValueError("a field is longer than its message")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers go out as their 64-bit complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return (value - (1 << 64) if value >> 63 else value), at
        shift += 7
