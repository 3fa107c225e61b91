"""Tool calls of a simulated ElevenLabs agent: the server's, the client's, and MCP servers' with approval."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Protocol

from services.simulator import elevenlabs_frames as frames
from services.simulator.conversation import Script, UseTool
from services.simulator.conversations import Conversation, Line
from services.simulator.wire import Json

_TYPES = {"server": "webhook", "client": "client", "mcp": "mcp"}


class Talk(Protocol):
    """What tools need of their conversation."""

    record: Conversation

    @property
    def script(self) -> Script: ...

    def next_event(self) -> int: ...

    async def emit(self, frame: Json) -> None: ...


class Tools:
    """Runs the tool calls of one conversation; the client's answers come in by `resolve`."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._waiting: dict[str, asyncio.Future[Json]] = {}
        self._count = 0

    def resolve(self, call_id: str, frame: Json) -> None:
        """An answer of the client. One that nobody waits for (any more) is ignored."""
        future = self._waiting.get(call_id)
        if future is not None and not future.done():
            future.set_result(frame)

    async def use(self, tool: UseTool) -> tuple[str, bool]:
        """Call a tool: its result as text, and whether it failed (a client that does not answer has)."""
        call_id = self._new_id()
        tool_type = _TYPES[tool.where]
        record = self._talk.record
        line = record.add(Line("agent", None, record.now_ms()))
        call = {"id": call_id, "name": tool.name, "type": tool_type, "arguments": tool.arguments}
        line.tool_calls.append({**call, "called": True})
        await self._talk.emit(frames.tool_request(self._talk.next_event(), call_id, tool.name, tool_type))
        started = record.now_ms()
        if tool.where == "client":
            result, failed = await self._at_client(tool, call_id)
        elif tool.where == "mcp":
            result, failed = await self._at_mcp(tool, call_id)
        else:
            await asyncio.sleep(tool.took_ms / 1000)
            result, failed = as_text(tool.result), tool.is_error
        took = record.now_ms() - started
        line.tool_results.append(
            {"id": call_id, "name": tool.name, "type": tool_type, "result": result, "is_error": failed}
            | {"took_ms": took}
        )
        await self._responded(call_id, tool.name, tool_type, failed, result)
        return result, failed

    async def end_call(self) -> None:
        """The system tool that ends a conversation."""
        call_id = self._new_id()
        await self._talk.emit(frames.tool_request(self._talk.next_event(), call_id, "end_call", "system"))
        await self._responded(call_id, "end_call", "system", False, "")

    async def _responded(self, call_id: str, name: str, tool_type: str, failed: bool, result: str) -> None:
        response = frames.tool_response(self._talk.next_event(), call_id, name, tool_type, failed)
        await self._talk.emit(response)
        await self._talk.emit(frames.tool_response_in_full(response, result))

    async def _at_client(self, tool: UseTool, call_id: str) -> tuple[str, bool]:
        event_id = self._talk.next_event()
        answer = await self._ask(
            frames.client_tool_call(event_id, call_id, tool.name, tool.arguments), call_id, tool.timeout_ms
        )
        if answer is None:
            return f"The client did not answer within {tool.timeout_ms} ms.", True
        return str(answer.get("result")), bool(answer.get("is_error"))

    async def _at_mcp(self, tool: UseTool, call_id: str) -> tuple[str, bool]:
        servers = self._talk.script.mcp
        service = str(servers[0].get("id", "mcp_1")) if servers else "mcp_1"

        def state(name: str, **more: object) -> Json:
            when = datetime.fromtimestamp(self._talk.record.clock.now() / 1000, UTC).isoformat()
            return frames.mcp_call(service, call_id, tool.name, tool.arguments, when, state=name, **more)

        if tool.needs_approval:
            patience = self._talk.script.approval_timeout_ms
            answer = await self._ask(
                state("awaiting_approval", approval_timeout_secs=patience / 1000), call_id, patience
            )
            if answer is None or not answer.get("is_approved"):
                why = "was not approved in time" if answer is None else "was not approved"
                message = f"The tool call {why}."
                await self._talk.emit(state("failure", error_message=message))
                return message, True
        await self._talk.emit(state("loading"))
        await asyncio.sleep(tool.took_ms / 1000)
        text = as_text(tool.result)
        if tool.is_error:
            await self._talk.emit(state("failure", error_message=text or "The tool failed."))
        else:
            await self._talk.emit(state("success", result=[{"type": "text", "text": text}]))
        return text, tool.is_error

    async def _ask(self, frame: Json, call_id: str, timeout_ms: int) -> Json | None:
        """Send a question and wait for its answer; None when there is none in time."""
        future: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            await self._talk.emit(frame)
            async with asyncio.timeout(timeout_ms / 1000):
                return await future
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(call_id, None)

    def _new_id(self) -> str:
        self._count += 1
        return f"tool_call_{self._talk.record.id.removeprefix('conv_')[:8]}_{self._count}"


def as_text(result: object) -> str:
    """A tool's result as the vendor hands it on: text stays, everything else is JSON."""
    if result is None:
        return ""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
