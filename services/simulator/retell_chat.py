"""Retell's text paths: chats with a memory, and playground completions without one.

    POST  /create-chat   /create-chat-completion      GET /get-chat/{id}      PATCH /end-chat/{id}
    POST  /agent-playground-completion/{agent}

The playground is told the whole conversation each time: its brain hears all earlier messages of the user
again and answers the last. Shapes: SDK 6.2.13. Assumed: an agent of the voice channel may chat too, a chat
that has ended answers 400.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.clock import Clock
from services.model import Provider
from services.simulator.conversation import Brain, Hang, Say, Script, Step, UseTool
from services.simulator.conversations import Conversation, Conversations, Line
from services.simulator.retell_store import RetellStore, Versioned
from services.simulator.wire import Json, Reply, Request, Router, answer

_BROKEN = b'{"messages":[{"role":"agent","con'
_CENTS_PER_MESSAGE = 0.2


@dataclass(eq=False, slots=True)
class _Chat:
    id: str
    agent: Versioned
    version: int
    brain: Brain
    log: Conversation
    started: int
    variables: dict[str, str]
    metadata: object
    status: str = "ongoing"
    ended: int | None = None
    messages: list[Json] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Answer:
    """What a brain's steps come to: messages, and how it ended."""

    messages: list[Json] = field(default_factory=list)
    ended: bool = False
    broken: Reply | None = None


class RetellChats:
    """All chats of the account. `fail` makes the vendor's error answers."""

    def __init__(
        self,
        store: RetellStore,
        conversations: Conversations,
        clock: Clock,
        fail: Callable[..., Reply],
        script_of: Callable[[Versioned, int], Script],
        seed: int = 0,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._clock = clock
        self._fail = fail
        self._script = script_of
        self._rng = random.Random(f"{seed}/retell/chats")
        self._chats: dict[str, _Chat] = {}

    def add_routes(self, router: Router) -> None:
        router.add("POST", "/create-chat", "call", self._create)
        router.add("POST", "/create-chat-completion", "call", self._complete)
        router.add("GET", "/get-chat/*", "detail", self._get)
        router.add("PATCH", "/end-chat/*", "call", self._end)
        router.add("POST", "/agent-playground-completion/*", "call", self._playground)

    # Chats

    async def _create(self, request: Request) -> Reply:
        body = request.json_object()
        if not body or not isinstance(body.get("agent_id"), str):
            return self._fail(400)
        agent = self._store.agents.get(body["agent_id"])
        version = None if agent is None else agent.find(str(body.get("agent_version") or ""))
        variables = body.get("retell_llm_dynamic_variables") or {}
        if agent is None or version is None:
            return self._fail(422, "Cannot find requested asset under given api key.")
        if not isinstance(variables, dict) or not all(isinstance(item, str) for item in variables.values()):
            return self._fail(400)
        chat_id = self._id("chat")
        name = str(agent.latest.data.get("agent_name") or "")
        log = self._conversations.create(chat_id, Provider.RETELL, agent.id, name, "chat")
        log.text_only = True
        log.begin()
        brain = Brain(self._script(agent, version), self._rng.getrandbits(32), variables)
        chat = _Chat(chat_id, agent, version, brain, log, self._clock.now(), variables, body.get("metadata"))
        self._chats[chat.id] = chat
        greeted = await self._answer(brain.greeting(), [])
        self._keep(chat, greeted)
        return greeted.broken or answer(self._shown(chat), 201)

    async def _complete(self, request: Request) -> Reply:
        body = request.json_object()
        content = (body or {}).get("content")
        if not body or not isinstance(content, str) or not isinstance(body.get("chat_id"), str):
            return self._fail(400)
        chat = self._chats.get(body["chat_id"])
        if chat is None:
            return self._fail(422, "Cannot find requested asset under given api key.")
        async with chat.turn:
            if chat.status != "ongoing":
                return self._fail(400, "Chat is already ended.")
            chat.log.received("message")
            said = self._message({"role": "user", "content": content})
            chat.messages.append(said)
            chat.log.add(Line("user", content, chat.log.now_ms(), medium="text"))
            await asyncio.sleep(chat.brain.script.think_ms / 1000)
            given = await self._answer(chat.brain.on_user(content), [])
            self._keep(chat, given)
        return given.broken or answer({"messages": given.messages}, 201)

    def _get(self, _: Request, chat_id: str) -> Reply:
        chat = self._chats.get(chat_id)
        return self._fail(422) if chat is None else answer(self._shown(chat))

    def _end(self, _: Request, chat_id: str) -> Reply:
        chat = self._chats.get(chat_id)
        if chat is None:
            return self._fail(422, "Cannot find requested asset under given api key.")
        if chat.status != "ongoing":
            return self._fail(400, "Chat is already ended.")
        self._finish(chat, "ended", "ended by the client")
        return Reply(204)

    def _keep(self, chat: _Chat, given: _Answer) -> None:
        chat.messages += given.messages
        for message in given.messages:
            if message["role"] == "agent":
                chat.log.add(Line("agent", str(message["content"]), chat.log.now_ms(), medium="text"))
        if given.ended and chat.status == "ongoing":
            self._finish(chat, "error" if given.broken else "ended", "ended by the agent")

    def _finish(self, chat: _Chat, status: str, reason: str) -> None:
        chat.status, chat.ended = status, self._clock.now()
        chat.log.finish(1000, reason, failed=status == "error")

    def _shown(self, chat: _Chat) -> Json:
        spoken = [item for item in chat.messages if item["role"] in ("agent", "user")]
        data: Json = {
            "chat_id": chat.id,
            "agent_id": chat.agent.id,
            "version": chat.version,
            "chat_status": chat.status,
            "chat_type": "api_chat",
            "start_timestamp": chat.started,
            "retell_llm_dynamic_variables": chat.variables,
            "collected_dynamic_variables": {},
            "message_with_tool_calls": chat.messages,
            "transcript": "".join(f"{item['role'].capitalize()}: {item['content']}\n" for item in spoken),
        }
        if chat.metadata is not None:
            data["metadata"] = chat.metadata
        if chat.ended is not None:
            cost = round(_CENTS_PER_MESSAGE * sum(item["role"] == "agent" for item in spoken), 2)
            data["end_timestamp"] = chat.ended
            data["chat_cost"] = {
                "combined_cost": cost,
                "product_costs": [{"product": "chat", "unit_price": _CENTS_PER_MESSAGE, "cost": cost}],
            }
        return data

    # The playground

    async def _playground(self, request: Request, agent_id: str) -> Reply:
        body = request.json_object()
        agent = self._store.agents.get(agent_id)
        version = None if agent is None else agent.find(request.query.get("version", ""))
        if agent is None or version is None:
            return self._fail(422, "Cannot find requested asset under given api key.")
        messages = None if body is None else body.get("messages")
        if body is None or not isinstance(messages, list) or not all(map(_is_message, messages)):
            return self._fail(400)
        script = self._script(agent, version)
        brain = Brain(script, 0, body.get("dynamic_variables") or {})
        said = [item["content"] for item in messages if item["role"] == "user"]
        steps: list[Step] = brain.greeting()
        for text in said:
            steps = brain.on_user(text)
        if said:
            await asyncio.sleep(script.think_ms / 1000)
        given = await self._answer(steps, body.get("tool_mocks") or [])
        data: Json = {"messages": given.messages, "call_ended": given.ended}
        for name in ("current_state", "current_node_id"):
            if body.get(name) is not None:
                data[name] = body[name]
        data["dynamic_variables"] = body.get("dynamic_variables") or {}
        data["knowledge_base_retrieved_contents"] = []
        return given.broken or answer(data)

    # Answers

    async def _answer(self, steps: Sequence[Step], mocks: Sequence[Any]) -> _Answer:
        made = _Answer()
        result: object = None
        excuse = ""
        for step in steps:
            if isinstance(step, Say):
                await asyncio.sleep(step.pause_ms / 1000)
                text = excuse or step.with_result(result).text
                made.messages.append(self._message({"role": "agent", "content": text}))
                excuse = ""
            elif isinstance(step, UseTool):
                await asyncio.sleep((step.pause_ms + step.took_ms) / 1000)
                result, failed = self._tool(made, step, mocks)
                excuse = step.on_error if failed else ""
            elif isinstance(step, Hang) and await self._breaks(made, step):
                break
        return made

    async def _breaks(self, made: _Answer, hang: Hang) -> bool:
        if hang.how == "stall":
            await asyncio.sleep(hang.ms / 1000)
            return False
        made.ended = hang.how in ("end", "close", "crash")
        if hang.how in ("close", "crash"):
            made.broken = self._fail(500, hang.reason)
        elif hang.how == "garbage":
            made.broken = Reply(200, _BROKEN)
        return made.ended or made.broken is not None

    def _tool(self, made: _Answer, tool: UseTool, mocks: Sequence[Any]) -> tuple[object, bool]:
        """Call and result as messages; a mock of the client answers instead of the tool."""
        tool_id = self._id("tool_call")
        made.messages.append(
            self._message(
                {
                    "role": "tool_call_invocation",
                    "tool_call_id": tool_id,
                    "name": tool.name,
                    "arguments": json.dumps(tool.arguments, ensure_ascii=False),
                }
            )
        )
        result, failed = tool.result, tool.is_error
        for mock in mocks:
            if isinstance(mock, dict) and mock.get("tool_name") == tool.name and _matches(mock, tool):
                result, failed = mock.get("output", ""), mock.get("result") is False
                break
        content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
        made.messages.append(
            self._message(
                {
                    "role": "tool_call_result",
                    "tool_call_id": tool_id,
                    "content": content,
                    "successful": not failed,
                }
            )
        )
        return result, failed

    def _message(self, fields: Json) -> Json:
        return {"message_id": self._id("msg"), "created_timestamp": self._clock.now(), **fields}

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._rng.getrandbits(112):028x}"


def _is_message(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("role"), str):
        return False
    return item["role"] not in ("agent", "user") or isinstance(item.get("content"), str)


def _matches(mock: Json, tool: UseTool) -> bool:
    rule = mock.get("input_match_rule") or {}
    if rule.get("type") == "any":
        return True
    wanted = rule.get("args")
    return isinstance(wanted, dict) and all(tool.arguments.get(key) == item for key, item in wanted.items())
