"""Typing with a Retell agent: its playground, or a chat. No audio is opened anywhere.

The playground keeps nothing at the vendor: the whole conversation is sent with every turn, so a turn that
got lost on the way can be sent again. A chat is kept by the vendor; each of its requests is sent once.
Paths and shapes: SDK 6.2.13. In both, tools of the agent really run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal

from services import __product__
from services.calls.access import VendorAccess
from services.calls.brief_payload import retell_override
from services.calls.messages import (
    AgentSpeech,
    Connected,
    Cost,
    Message,
    Notice,
    StateChanged,
    ToolEnded,
    ToolStarted,
)
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.transport import Transport, reason_of
from services.clock import Clock, SystemClock
from services.errors import Category, ServiceError
from services.http.client import Call, Http, HttpOptions, segment
from services.http.wire import parse, wrong_shape
from services.providers.hosts import VENDOR_NAMES
from services.security import Secret
from services.text import clean, clean_line

log = logging.getLogger(__name__)

Json = dict[str, Any]

TURN_SECONDS: Final = 90.0
"""For one answer; the vendor's own client waits longer still."""
HANG_UP_SECONDS: Final = 3.0
RETRIES: Final = 2
MOST_FAILED: Final = 3
"""Turns in a row without an answer before the conversation is given up."""
_NEVER_ARRIVED: Final = frozenset({"unreachable", "rate_limited"})
"""A turn whose answer was lost is not asked again: the playground runs real tools."""
_PASSING: Final = frozenset({Category.TRANSIENT, Category.RATE_LIMIT, Category.TIMEOUT})
_MOST_TEXT: Final = 100_000


class RetellText(Transport):
    """One typed conversation with a Retell agent."""

    kind = TransportKind.TEXT

    def __init__(
        self,
        access: VendorAccess,
        agent_id: str,
        *,
        mode: Literal["playground", "chat"] = "playground",
        version: int | str | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """`version`: a number or a tag; without one the agent as it stands. `sleep` and `rng` are for the
        waits between attempts."""
        super().__init__()
        # Only the playground takes what the user did not say.
        self.capabilities = Capabilities(text=True, context=mode == "playground")
        self._access = access
        self._agent_id = agent_id
        self._mode = mode
        self._version = version
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._http: Http | None = None
        self._chat_id = ""
        self._history: list[Json] = []
        self._variables: dict[str, str] = {}
        self._place: Json = {}
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._answers = 0
        self._failed = 0
        self._live = False

    # -- opening and ending -----------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        self._emit(StateChanged(CallState.CONNECTING))
        self._http = self._client(TURN_SECONDS)
        _, self._variables = retell_override(brief)
        answer = await (self._begin_chat() if self._mode == "chat" else self._greeted())
        self._emit(Connected(self._chat_id))
        self._emit(StateChanged(CallState.LIVE))
        self._live = True
        self._take(answer)
        if not self.over:
            self._own(self._converse(), "turns")

    async def _greeted(self) -> Json:
        """The agent's first words; an agent that waits for the user has none."""
        try:
            return await self._complete()
        except ServiceError as error:
            if error.code != "invalid_request":
                raise
            return {"messages": []}

    async def _begin_chat(self) -> Json:
        body: Json = {"agent_id": self._agent_id}
        if self._version is not None:
            body["agent_version"] = self._version
        if self._variables:
            body["retell_llm_dynamic_variables"] = self._variables
        chat = await self._ask(Call("POST", "/create-chat", body=body))
        found = chat.get("chat_id")
        if not isinstance(found, str) or not found:
            raise wrong_shape("a chat with 'chat_id'", chat)
        self._chat_id = found
        return {"messages": chat.get("message_with_tool_calls") or [], "chat_status": chat.get("chat_status")}

    async def _close(self, first: bool) -> None:
        http, self._http = self._http, None
        if http is None:
            return
        try:
            if first and self._chat_id:
                async with asyncio.timeout(HANG_UP_SECONDS):
                    path = f"/end-chat/{segment(self._chat_id, 'a chat')}"
                    await http.read(Call("PATCH", path), lambda text: text, write=True, insist=True)
        except (ServiceError, TimeoutError) as error:
            log.info("a chat could not be ended: %s", type(error).__name__)
        finally:
            await http.aclose()

    async def aftermath(self) -> list[Message]:
        """A chat's cost. The playground tells none."""
        if not self._chat_id:
            return []
        http = self._client(HANG_UP_SECONDS)
        try:
            chat = await http.read(self._chat_call(), _object, attempts=1)
        except ServiceError as error:
            log.info("a chat that is over could not be read: %s", error.code)
            return []
        finally:
            await http.aclose()
        cost = chat.get("chat_cost")
        cents = cost.get("combined_cost") if isinstance(cost, dict) else None
        if isinstance(cents, int | float) and not isinstance(cents, bool):
            return [Cost(cents / 100, "USD", final=True)]
        return []

    # -- talking ----------------------------------------------------------------------------------

    async def take_turn(self) -> None:
        await self._access.take()

    async def send_text(self, text: str) -> None:
        if not self.over:
            self._said.put_nowait(text)

    async def send_context(self, text: str) -> None:
        if self._mode == "chat":
            raise self._not_offered("a contextual update (Retell's chats have none)")
        if not self.over:
            self._history.append({"role": "injected", "content": text})

    async def _converse(self) -> None:
        """Answer what was typed, one after the other."""
        while not self.over:
            text = await self._said.get()
            try:
                answer = await (self._say_chat(text) if self._mode == "chat" else self._say(text))
            except ServiceError as error:
                self._unanswered(error)
                continue
            self._failed = 0
            self._take(answer)
            await self._room()

    async def _say(self, text: str) -> Json:
        said: Json = {"role": "user", "content": text}
        self._history.append(said)
        try:
            return await self._complete()
        except ServiceError:
            # Not answered, so not said: it would be there twice when it is typed again.
            self._history[:] = [item for item in self._history if item is not said]
            raise

    async def _complete(self) -> Json:
        """The playground's next turn, asked again when it certainly did not arrive."""
        path = f"/agent-playground-completion/{segment(self._agent_id, 'an agent')}"
        body: Json = {"messages": list(self._history), **self._place}
        if self._variables:
            body["dynamic_variables"] = self._variables
        call = Call("POST", path, {"version": self._version}, body)
        for attempt in range(RETRIES + 1):
            try:
                answer = await self._ask(call)
                break
            except ServiceError as error:
                if error.code not in _NEVER_ARRIVED or attempt == RETRIES:
                    raise
                wait = max(0.5 * 2**attempt * self._rng.uniform(0.5, 1), error.retry_after or 0)
                if wait > TURN_SECONDS:
                    raise
                state = CallState.RECONNECTING if self._live else CallState.CONNECTING
                self._emit(StateChanged(state, f"attempt {attempt + 2} in {wait:.1f} s"))
                await self._sleep(wait)
        if attempt and self._live:
            self._emit(StateChanged(CallState.LIVE))
        found = _messages(answer)
        self._history += [item for item in found if isinstance(item.get("role"), str)]
        for name in ("current_state", "current_node_id"):
            if isinstance(answer.get(name), str):
                self._place[name] = answer[name]
        changed = answer.get("dynamic_variables")
        if isinstance(changed, dict):
            self._variables |= {k: v for k, v in changed.items() if isinstance(v, str)}
        return answer

    async def _say_chat(self, text: str) -> Json:
        body = {"chat_id": self._chat_id, "content": text}
        answer = await self._ask(Call("POST", "/create-chat-completion", body=body))
        found = _messages(answer)
        try:
            # A completion does not tell whether the agent has ended the chat with it.
            chat = await self._ask(self._chat_call())
        except ServiceError as error:
            log.info("the state of a chat could not be read: %s", error.code)
            chat = {}
        return {"messages": found, "chat_status": chat.get("chat_status")}

    def _unanswered(self, error: ServiceError) -> None:
        self._failed += 1
        if self._mode == "chat" and error.code == "invalid_request" and "ended" in error.message.lower():
            self._end(EndReason.AGENT_ENDED, "the chat had ended already", by="agent")
        elif error.category not in _PASSING or self._failed >= MOST_FAILED:
            self._emit(Notice(error.message, "act", error.advice))
            self._end(reason_of(error), error.message, by="vendor")
        else:
            self._emit(Notice(f"No answer: {error.message}", "act", "Type it again"))

    # -- reading ----------------------------------------------------------------------------------

    def _take(self, answer: Json) -> None:
        """Tell what an answer holds, and whether it was the last."""
        for message in self._told(_messages(answer)):
            self._emit(message)
        if answer.get("chat_status") == "error":
            self._end(EndReason.VENDOR_ERROR, "Retell ended the chat with an error", by="vendor")
        elif answer.get("call_ended") is True or answer.get("chat_status") == "ended":
            self._end(EndReason.AGENT_ENDED, by="agent")

    def _told(self, items: Iterable[Json]) -> Iterable[Message]:
        for item in items:
            role, content = item.get("role"), item.get("content")
            text = clean(content[:_MOST_TEXT]) if isinstance(content, str) else ""
            if role == "agent" and text.strip():
                self._answers += 1
                yield AgentSpeech(text, True, self._answers)
            elif role == "tool_call_invocation":
                where = "mcp" if item.get("type") == "mcp" else "server"
                name = clean_line(str(item.get("name") or "?"))
                yield ToolStarted(_tool_id(item), name, _arguments(item.get("arguments")), where)
            elif role == "tool_call_result":
                yield ToolEnded(_tool_id(item), text, item.get("successful") is not False)
            elif role in ("node_transition", "state_transition"):
                to = item.get("new_node_name") or item.get("new_state_name") or item.get("new_node_id")
                yield Notice(f"The agent moved on to {clean_line(str(to or 'another step'))}")
            elif role == "sms" and text.strip():
                yield Notice(f"The agent sent a text message: {clean_line(text)}")

    def _chat_call(self) -> Call:
        return Call("GET", f"/get-chat/{segment(self._chat_id, 'a chat')}")

    async def _ask(self, call: Call) -> Json:
        if self._http is None:
            raise ServiceError("The conversation is over", category=Category.TRANSIENT, code="closed")
        return await self._http.read(call, _object, write=call.method != "GET", attempts=1)

    def _client(self, seconds: float) -> Http:
        return Http(
            HttpOptions(
                vendor=VENDOR_NAMES[self._access.provider],
                base_url=self._access.base_url,
                key=Secret(self._access.key.strip()),
                concurrency=2,
                clock=self._clock,
                timeout=seconds,
                user_agent=__product__,
                policy=self._access.policy,
            )
        )


def _object(text: str) -> Json:
    data = parse(text).data
    if not isinstance(data, dict):
        raise wrong_shape("an object", data)
    return data


def _messages(answer: Mapping[str, Any]) -> list[Json]:
    found = answer.get("messages")
    if not isinstance(found, list):
        raise wrong_shape("an object with 'messages'", dict(answer))
    return [item for item in found if isinstance(item, dict)]


def _tool_id(item: Json) -> str:
    return str(item.get("tool_call_id") or "tool")


def _arguments(given: object) -> Json:
    """A tool's arguments: JSON in a string, if it is that."""
    if isinstance(given, str) and given.strip():
        try:
            found = json.loads(given)
        except ValueError:
            return {"arguments": given}
        return found if isinstance(found, dict) else {"arguments": found}
    return {}
