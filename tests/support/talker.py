"""A client of ElevenLabs conversations: keeps every frame, checks it against the schema, answers pings."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

SCHEMA = "elevenlabs-ws-messages-types0.23.0.schema.json"
Frame = dict[str, Any]


@functools.cache
def frame_schema() -> dict[str, Any] | None:
    """The vendor's message schema, or None where it is not at hand (see `test_contract`)."""
    checkout = Path(__file__).parents[2]
    folder = Path(os.environ.get("CALLBOARD_OPENAPI_DIR", checkout.parent / "shared" / "openapi"))
    if not (folder / SCHEMA).is_file():
        return None
    found: dict[str, Any] = json.loads((folder / SCHEMA).read_text(encoding="utf-8"))
    return found


@functools.cache
def _validators() -> dict[str, Draft202012Validator]:
    """By type: a union of everything would name every alternative when one member is wrong."""
    schema = frame_schema()
    if schema is None:
        return {}
    definitions = schema["$defs"]
    found = {}
    for reference in schema["server_to_client"]["anyOf"]:
        name = reference["$ref"].rpartition("/")[2]
        kind = definitions[name]["properties"]["type"]["const"]
        found[kind] = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})
    return found


def wrong_with(frame: Frame) -> list[str]:
    """What in a server's frame is not as the schema wants it; nothing where there is no schema."""
    validators = _validators()
    if not validators:
        return []
    validator = validators.get(str(frame.get("type")))
    if validator is None:
        return [f"unknown type {frame.get('type')}"]
    return [f"{frame['type']} {error.json_path}: {error.message}" for error in validator.iter_errors(frame)]


class Talker:
    """One conversation. Frames are kept in `frames`; texts that are no JSON object in `garbage`."""

    def __init__(self, socket: ClientConnection, *, pongs: bool = True) -> None:
        self.socket = socket
        self.frames: list[Frame] = []
        self.times: list[float] = []
        self.garbage: list[str] = []
        self._pongs = pongs
        self._changed = asyncio.Event()
        self._ended = False

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionClosed):
            async for message in self.socket:
                text = message if isinstance(message, str) else message.decode()
                try:
                    frame = json.loads(text)
                except ValueError:
                    self.garbage.append(text)
                    self._changed.set()
                    continue
                self.frames.append(frame)
                self.times.append(loop.time())
                self._changed.set()
                if frame["type"] == "ping" and self._pongs:
                    await self.send(type="pong", event_id=frame["ping_event"]["event_id"])
        self._ended = True
        self._changed.set()

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def say(self, data: bytes, frame_bytes: int = 640) -> None:
        """Audio in the announced format, as fast as it goes; less when the agent closes meanwhile."""
        with contextlib.suppress(ConnectionClosed):
            for at in range(0, len(data), frame_bytes):
                chunk = base64.b64encode(data[at : at + frame_bytes]).decode()
                await self.socket.send(json.dumps({"user_audio_chunk": chunk}))

    def of(self, kind: str) -> list[Frame]:
        return [frame for frame in self.frames if frame["type"] == kind]

    def kinds(self) -> list[str]:
        return [frame["type"] for frame in self.frames]

    async def until(self, condition: str | Callable[[], object], count: int = 1) -> Frame:
        """Wait for the `count`-th frame of a type (which is returned), or until a condition holds."""
        kind = condition if isinstance(condition, str) else ""
        async with asyncio.timeout(10):
            while not (len(self.of(kind)) >= count if kind else condition()):  # type: ignore[operator]
                if self._ended:
                    raise AssertionError(
                        f"closed ({self.socket.close_code}) before {condition}: {self.kinds()}"
                    )
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[count - 1] if kind else {}

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait for the end: close code and reason."""
        async with asyncio.timeout(10):
            while not self._ended:
                self._changed.clear()
                await self._changed.wait()
        return self.socket.close_code, self.socket.close_reason


@contextlib.asynccontextmanager
async def talking(
    url: str, *, initiation: Frame | None = None, begin: bool = True, pongs: bool = True, **options: Any
) -> AsyncIterator[Talker]:
    """A conversation at a WebSocket URL; on the way out every frame is checked and the socket closed."""
    async with connect(url, proxy=None, max_size=None, **options) as socket:
        talker = Talker(socket, pongs=pongs)
        if begin:
            with contextlib.suppress(ConnectionClosed):
                await talker.send(**{"type": "conversation_initiation_client_data", **(initiation or {})})
        reader = asyncio.create_task(talker.read())
        try:
            yield talker
        finally:
            await socket.close()
            await reader
    wrong = [text for frame in talker.frames if frame["type"] != "news" for text in wrong_with(frame)]
    assert not wrong, "\n".join(wrong)
