"""The state of the simulated Retell account: agents, Retell LLMs and conversation flows, each with versions.

Rules, and where they come from (vendor SDK 6.2 types and the April 2026 specification):

* A version is a draft until it is published; publishing marks it in place. A published version never changes.
* A new version is made from a base version and becomes the newest one; it is a draft.
* An agent version names the version of its engine. Assumed: publishing an agent version publishes that engine
  version too, and a new agent version gets a new engine version of its own.
* A write without a version goes to the newest draft. Assumed: it is refused (400) when there is no draft.
* Every write sets `last_modification_timestamp` (ms) of what it wrote and of nothing else. An agent's
  `user_modified_timestamp` is the newest of its versions: a changed prompt shows on the LLM only.
"""

from __future__ import annotations

import random

from services.clock import Clock
from services.simulator import retell_data, words
from services.simulator.wire import Document, Json

KIND_AGENT = "agent"
KIND_LLM = "llm"
KIND_FLOW = "flow"
ID_FIELDS = {KIND_AGENT: "agent_id", KIND_LLM: "llm_id", KIND_FLOW: "conversation_flow_id"}


class PublishedVersion(Exception):
    """A write to a version that is published."""


class Versioned:
    """One object and its versions, oldest first. `seq` is its place in the order of creation."""

    __slots__ = ("id", "kind", "published", "seq", "tags", "versions")

    def __init__(self, kind: str, object_id: str, seq: int, first: Json) -> None:
        self.kind = kind
        self.id = object_id
        self.seq = seq
        self.versions: dict[int, Document] = {int(first["version"]): Document(first)}
        self.published: set[int] = set()
        self.tags: dict[str, int] = {}

    @property
    def newest(self) -> int:
        return max(self.versions)

    @property
    def latest(self) -> Document:
        return self.versions[self.newest]

    @property
    def modified(self) -> int:
        return max(int(document.data["last_modification_timestamp"]) for document in self.versions.values())

    def find(self, version: str) -> int | None:
        """The version that a query names: nothing or `latest`, a number, or a tag."""
        if version in ("", "latest"):
            return self.newest
        number = int(version) if version.isdecimal() else self.tags.get(version)
        return number if number in self.versions else None

    def find_draft(self, version: str) -> int | None:
        """The version a write goes to: the one that is named, else the newest draft, else the newest."""
        drafts = [number for number in self.versions if number not in self.published]
        return max(drafts) if drafts and not version else self.find(version)

    def write(self, version: int, patch: Json, now: int) -> Document:
        """Replace top-level fields of a draft. Raises `PublishedVersion`."""
        if version in self.published:
            raise PublishedVersion
        data = {**self.versions[version].data, **patch}
        data["last_modification_timestamp"] = max(now, self.modified + 1)
        document = self.versions[version] = Document(data)
        return document

    def add_version(self, base: int, now: int) -> int:
        """A new draft made from `base`; returns its number."""
        number = self.newest + 1
        data = {**self.versions[base].data, "version": number}
        data["last_modification_timestamp"] = max(now, self.modified + 1)
        for name in ("version_title", "version_description"):
            data.pop(name, None)
        if self.kind != KIND_FLOW:
            data["is_published"] = False
        if self.kind == KIND_AGENT:
            data["base_version"] = base
        self.versions[number] = Document(data)
        return number

    def publish(self, version: int, now: int, more: Json | None = None) -> None:
        """Mark a version published, in place; publishing it again only changes `more`."""
        patch = dict(more or {})
        if self.kind != KIND_FLOW:
            patch["is_published"] = True
        self.published.discard(version)
        self.write(version, patch, now)
        self.published.add(version)


class RetellStore:
    """Everything in the account. Times of writes come from `clock`, ids from the seed."""

    def __init__(self, count: int, seed: int, clock: Clock) -> None:
        self._clock = clock
        self._rng = random.Random(f"{seed}/retell/new")
        self._seq = 0
        self.objects: dict[str, dict[str, Versioned]] = {KIND_AGENT: {}, KIND_LLM: {}, KIND_FLOW: {}}
        names = words.agent_names(words.RETELL_NAMES, count, random.Random(f"{seed}/retell/names"))
        for index, (name, locale) in enumerate(names):
            self._generate(random.Random(f"{seed}/retell/{index}"), index, name, locale)

    @property
    def agents(self) -> dict[str, Versioned]:
        return self.objects[KIND_AGENT]

    def now(self) -> int:
        return self._clock.now()

    def add(self, kind: str, data: Json) -> Versioned:
        """Store a new object under a new id; `data` lacks id, version and time."""
        prefix = {KIND_AGENT: "agent_", KIND_LLM: "llm_", KIND_FLOW: "conversation_flow_"}[kind]
        object_id = words.hex_id(self._rng, prefix, 26 if kind != KIND_FLOW else 12)
        first: Json = {ID_FIELDS[kind]: object_id, "version": 0, **data}
        if kind != KIND_FLOW:
            first["is_published"] = False
        first["last_modification_timestamp"] = self.now()
        return self._keep(kind, object_id, first)

    def engine_of(self, agent: Json) -> tuple[Versioned | None, int]:
        """The engine an agent version uses, and the engine's version; None for a custom LLM."""
        reference = agent.get("response_engine") or {}
        kind = {"retell-llm": KIND_LLM, "conversation-flow": KIND_FLOW}.get(reference.get("type", ""), "")
        engine = self.objects[kind].get(reference.get(ID_FIELDS[kind], "")) if kind else None
        if engine is None:
            return None, 0
        version = reference.get("version")
        return engine, version if version in engine.versions else engine.newest

    def users_of(self, engine: Versioned) -> list[str]:
        """Ids of the agents whose newest version uses `engine`."""
        return [agent.id for agent in self.agents.values() if self.engine_of(agent.latest.data)[0] is engine]

    def new_agent_version(self, agent: Versioned, base: int) -> int:
        """A new draft of an agent, with a new draft of its engine."""
        now = self.now()
        number = agent.add_version(base, now)
        data = agent.versions[number].data
        engine, engine_version = self.engine_of(data)
        if engine is not None:
            new_engine = engine.add_version(engine_version, now)
            reference = {**data["response_engine"], "version": new_engine}
            agent.versions[number] = Document({**data, "response_engine": reference})
        return number

    def publish_agent(self, agent: Versioned, version: int, more: Json) -> None:
        """Publish an agent version and the engine version it names."""
        now = self.now()
        agent.publish(version, now, more)
        engine, engine_version = self.engine_of(agent.versions[version].data)
        if engine is not None and engine_version not in engine.published:
            engine.publish(engine_version, now)

    def edit(self, agent: Versioned, part: str, patch: Json) -> Json:
        """Change an agent as a person in the vendor's dashboard would: in a draft, made if there is none.

        `part` is `agent` (its voice speed, unless `patch` says what) or `engine` (its prompt).
        Returns the ids and versions that changed.
        """
        version = agent.newest
        if version in agent.published:
            version = self.new_agent_version(agent, version)
        engine, engine_version = self.engine_of(agent.versions[version].data)
        changed: Json = {"agent_id": agent.id, "version": version}
        if part == "agent" or engine is None:
            speed = agent.versions[version].data.get("voice_speed", 1.0)
            agent.write(version, patch or {"voice_speed": round(speed % 1.5 + 0.05, 2)}, self.now())
            return {**changed, "part": "agent"}
        if engine_version in engine.published:
            engine_version = engine.add_version(engine_version, self.now())
            data = agent.versions[version].data
            reference = {**data["response_engine"], "version": engine_version}
            agent.write(version, {"response_engine": reference}, self.now())
        field = "general_prompt" if engine.kind == KIND_LLM else "global_prompt"
        text = engine.versions[engine_version].data.get(field) or ""
        engine.write(engine_version, patch or {field: bump_prompt(text)}, self.now())
        return {**changed, "part": "engine", "engine_id": engine.id, "engine_version": engine_version}

    def _keep(self, kind: str, object_id: str, first: Json) -> Versioned:
        stored = Versioned(kind, object_id, self._seq, first)
        self._seq += 1
        self.objects[kind][object_id] = stored
        return stored

    def _generate(self, rng: random.Random, index: int, name: str, locale: str) -> None:
        modified = words.EPOCH_MS - rng.randrange(2 * words.DAY_MS, 90 * words.DAY_MS)
        agent_id = words.hex_id(rng, "agent_")
        if index % 9 == 8:
            engine: Versioned | None = None
            reference: Json = {"type": "custom-llm", "llm_websocket_url": f"wss://llm.example.com/{index}"}
        elif index % 4 == 3:
            flow_id = words.hex_id(rng, "conversation_flow_", 12)
            engine = self._keep(KIND_FLOW, flow_id, retell_data.flow(rng, flow_id, name, locale, modified))
            reference = {"type": "conversation-flow", "conversation_flow_id": flow_id, "version": 0}
        else:
            llm_id = words.hex_id(rng, "llm_")
            engine = self._keep(KIND_LLM, llm_id, retell_data.llm(rng, index, llm_id, name, locale, modified))
            reference = {"type": "retell-llm", "llm_id": llm_id, "version": 0}
        first = retell_data.agent(rng, index, agent_id, name, locale, reference, modified)
        agent = self._keep(KIND_AGENT, agent_id, first)
        # A history: published versions, and for some agents a draft ahead of the newest published one.
        for number in range(rng.randint(0, 3)):
            modified += rng.randrange(60_000, words.DAY_MS // 3)
            agent.publish(number, modified, {"version_title": f"Release {number + 1}"})
            if engine is not None:
                engine.publish(number, modified)
            if number == 2:
                break
            modified += rng.randrange(60_000, words.DAY_MS // 3)
            agent.add_version(number, modified)
            if engine is not None:
                engine.add_version(number, modified)
                newest = {**agent.latest.data, "response_engine": {**reference, "version": number + 1}}
                agent.versions[agent.newest] = Document(newest)
        at_work = index % 2 == 0  # the draft is not what is published
        if at_work and engine is not None and engine.published and engine.newest not in engine.published:
            field = "general_prompt" if engine.kind == KIND_LLM else "global_prompt"
            engine.write(engine.newest, {field: bump_prompt(engine.latest.data[field])}, modified + 30_000)
        if agent.published and index % 3 == 0:
            agent.tags["production"] = max(agent.published)


def bump_prompt(text: str) -> str:
    """The prompt with one more remark at its end, numbered so that every edit differs."""
    marker = "\n\n# Revision "
    head, _, number = text.rpartition(marker)
    return f"{head}{marker}{int(number) + 1}" if head and number.isdecimal() else f"{text}{marker}1"
