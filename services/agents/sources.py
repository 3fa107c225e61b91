"""How each vendor is read: its lists, what they prove, and one agent's whole bundle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.agents.bundles import BundlePart, texts_digest
from services.agents.plan import Listed, Mirrored, Verdict
from services.errors import Category, ServiceError
from services.http import Wire
from services.model import Provider
from services.providers import ElevenLabsClient, RetellClient
from services.text import clean_line

SEVERAL = 5
"""Reads from which on one of the agents surely uses a tool: waiting to see would stall them all."""

INLINE_TEXTS = 256 * 1024
"""Characters of a bundle up to which its digest is taken on the loop, in a millisecond at most."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One agent's bundle and the marker to store with it.

    The marker is JSON: `texts` is the digest of the parts as received, the rest is the source's own.
    """

    parts: tuple[BundlePart, ...]
    marker: str

    def same_as(self, marker: str) -> bool:
        """Whether what was stored with this marker was, byte for byte, what was read now."""
        texts = _in_marker(marker).get("texts")
        return bool(texts) and texts == _in_marker(self.marker)["texts"]


class Source(Protocol):
    """One connection's vendor, for one sync run."""

    provider: Provider

    async def list_agents(self) -> dict[str, Listed]:
        """Every agent by vendor id, in the vendor's order. Must be called first."""
        ...

    def verdict(self, mirrored: Mirrored) -> Verdict:
        """What the lists prove about a mirrored agent."""
        ...

    def expect(self, reads: int | None) -> None:
        """Before the list: how many agents are certain to be read (None: all, but how many is unknown).

        What they share may be asked for already.
        """
        ...

    async def read(self, remote_id: str) -> Reading:
        """The agent with everything that makes it behave as it does."""
        ...

    async def aclose(self) -> None:
        """End what a cancelled run left behind."""
        ...


def source_of(client: RetellClient | ElevenLabsClient, *, fresh: bool) -> Source:
    """How this client's vendor is read; `fresh`: whether lists are asked for anew in any case."""
    if isinstance(client, ElevenLabsClient):
        return ElevenLabsSource(client, fresh)
    return RetellSource(client, fresh)


@dataclass(slots=True)
class RetellSource:
    """Retell: the lists of agents, LLMs and flows carry modification times and decide alone.

    The marker holds the agent's `user_modified_timestamp` as listed, and the engine's kind, id and
    `last_modification_timestamp`. What the *list* said is stored, not what the detail says: a change
    between the two then shows at the next sync instead of being missed.
    """

    client: RetellClient
    fresh: bool = False
    """Whether lists are asked for anew even when kept ones are young enough."""
    provider: Provider = Provider.RETELL
    _agents: dict[str, Any] = field(default_factory=dict)
    _engines: dict[tuple[str, str], Any] = field(default_factory=dict)

    async def list_agents(self) -> dict[str, Listed]:
        agents, self._engines = await asyncio.gather(
            self.client.list_agents(fresh=self.fresh), self.client.list_engine_times(fresh=self.fresh)
        )
        listed: dict[str, Listed] = {}
        for wire in agents:
            remote_id = _required(wire.data, "agent_id", "an agent in Retell's list")
            self._agents[remote_id] = wire.data.get("user_modified_timestamp")
            listed[remote_id] = Listed(remote_id, clean_line(str(wire.data.get("agent_name") or remote_id)))
        return listed

    def verdict(self, mirrored: Mirrored) -> Verdict:
        stored = _in_marker(mirrored.marker)
        if not stored.keys() >= {"agent", "engine"}:
            return Verdict.CHANGED
        agent, engine = stored["agent"], stored["engine"]
        listed = self._agents.get(mirrored.remote_id)
        if listed is None or agent != listed:
            return Verdict.CHANGED
        if engine is None:
            return Verdict.SAME
        kind, engine_id, modified = engine
        # An engine pinned to an older version is not in the list's latest state, but a change of the
        # latest state costs one detail read and no more.
        return Verdict.SAME if self._engines.get((kind, engine_id)) == modified else Verdict.CHANGED

    def expect(self, reads: int | None) -> None:
        """Nothing is shared: each agent has its own engine."""

    async def read(self, remote_id: str) -> Reading:
        agent = await self.client.agent(remote_id)
        engine_of = agent.data.get("response_engine") if isinstance(agent.data, dict) else None
        if not isinstance(engine_of, dict):
            raise _wrong_shape(f"Retell's answer for agent {remote_id} names no response_engine")
        parts = [BundlePart("agent", remote_id, agent.text)]
        engine: list[Any] | None = None
        kind, version = engine_of.get("type"), engine_of.get("version")
        if kind == "retell-llm":
            engine_id = _required(engine_of, "llm_id", f"agent {remote_id}")
            found = await _engine(self.client.llm(engine_id, version), engine_id)
            parts.append(BundlePart("engine", engine_id, found.text))
            engine = [kind, engine_id, self._engines.get((kind, engine_id))]
        elif kind == "conversation-flow":
            engine_id = _required(engine_of, "conversation_flow_id", f"agent {remote_id}")
            found = await _engine(self.client.flow(engine_id, version), engine_id)
            parts.append(BundlePart("engine", engine_id, found.text))
            engine = [kind, engine_id, self._engines.get((kind, engine_id))]
        return await _reading(parts, agent=self._agents.get(remote_id), engine=engine)

    async def aclose(self) -> None:
        """Nothing goes on by itself."""


@dataclass(slots=True)
class ElevenLabsSource:
    """ElevenLabs: the agent list carries no modification time, so a stale agent costs one detail read.

    Tools come from the workspace's tool list, read once per run: beside the list of agents when several
    are certain to be read, else only when an agent that was read uses one.
    """

    client: ElevenLabsClient
    fresh: bool = False
    """Whether lists are asked for anew even when kept ones are young enough."""
    provider: Provider = Provider.ELEVENLABS
    _tools: asyncio.Task[dict[str, Wire]] | None = None

    async def list_agents(self) -> dict[str, Listed]:
        listed: dict[str, Listed] = {}
        for wire in await self.client.list_agents(fresh=self.fresh):
            remote_id = _required(wire.data, "agent_id", "an agent in ElevenLabs' list")
            listed[remote_id] = Listed(remote_id, clean_line(str(wire.data.get("name") or remote_id)))
        return listed

    def verdict(self, mirrored: Mirrored) -> Verdict:
        return Verdict.SILENT

    def expect(self, reads: int | None) -> None:
        if reads is None or reads >= SEVERAL:
            self._start_tools()

    async def read(self, remote_id: str) -> Reading:
        agent = await self.client.agent(remote_id)
        if not isinstance(agent.data, dict) or not isinstance(agent.data.get("conversation_config"), dict):
            raise _wrong_shape(f"ElevenLabs' answer for agent {remote_id} has no conversation_config")
        parts = [BundlePart("agent", remote_id, agent.text)]
        tool_ids = _tool_ids(agent.data)
        if tool_ids:
            tools = await asyncio.shield(self._start_tools())
            # A tool that the list does not show was deleted or is another user's: the agent's own JSON
            # still names it, and there is nothing of it to mirror.
            parts += [BundlePart("tool", one, tools[one].text) for one in tool_ids if one in tools]
        return await _reading(parts)

    def _start_tools(self) -> asyncio.Task[dict[str, Wire]]:
        if self._tools is None:
            self._tools = asyncio.create_task(self._list_tools(), name="elevenlabs tools")
        return self._tools

    async def _list_tools(self) -> dict[str, Wire]:
        found = await self.client.list_tools(fresh=self.fresh)
        return {wire.data["id"]: wire for wire in found if isinstance(wire.data.get("id"), str)}

    async def aclose(self) -> None:
        """End the tool listing if a cancelled run left it behind."""
        if self._tools is not None:
            self._tools.cancel()
            await asyncio.gather(self._tools, return_exceptions=True)


async def _reading(parts: list[BundlePart], **listed: object) -> Reading:
    """The reading of these parts, of which the list said this."""
    large = sum(len(part.text) for part in parts) > INLINE_TEXTS
    texts = await asyncio.to_thread(texts_digest, parts) if large else texts_digest(parts)
    return Reading(tuple(parts), json.dumps({**listed, "texts": texts}))


def _in_marker(marker: str) -> dict[str, Any]:
    """What a marker holds; empty for one that no read or another version left."""
    try:
        stored = json.loads(marker)
    except ValueError:
        return {}
    return stored if isinstance(stored, dict) else {}


async def _engine(reading: Awaitable[Wire], engine_id: str) -> Wire:
    """An engine's document. Its absence is a fault of the agent that names it, not the agent's absence."""
    try:
        return await reading
    except ServiceError as error:
        if error.code != "not_found":
            raise
        raise ServiceError(
            f"The agent uses {engine_id}, which Retell does not have",
            advice="Open the agent in Retell's dashboard and choose its LLM or flow again",
            code="engine_missing",
        ) from error


def _tool_ids(agent: Mapping[str, Any]) -> list[str]:
    value: Any = agent
    for key in ("conversation_config", "agent", "prompt", "tool_ids"):
        value = value.get(key) if isinstance(value, dict) else None
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _required(data: object, key: str, where: str) -> str:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, str) or not value:
        raise _wrong_shape(f"{where} has no {key}")
    return value


def _wrong_shape(message: str) -> ServiceError:
    return ServiceError(
        message,
        category=Category.PERMANENT,
        advice="the vendor may have changed its API: update Callboard, or report it with the sync log",
        code="wrong_shape",
    )
