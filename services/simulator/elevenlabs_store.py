"""The state of the simulated ElevenLabs workspace: agents with branches and versions, tools, documents.

Rules, and where they come from (vendor specification of 2026-08 unless marked):

* Versioning is per agent. Where it is off, `version_id`, `branch_id` and `main_branch_id` are null and there
  are no branches; a PATCH switches it on unless told not to (`enable_versioning_if_not_enabled`, true by
  default).
* Assumed: every PATCH commits a new version to its branch (default: main), even when nothing differs.
* PATCH merges objects and replaces arrays (usual behaviour of this vendor, not in its specification).
* `metadata.updated_at_unix_secs` (seconds) is set by a write to the agent. Assumed: a changed tool shows in
  the `tools` of every agent that uses it and changes no agent's time or version.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from services.clock import Clock
from services.simulator import elevenlabs_data as data
from services.simulator import words
from services.simulator.retell_store import bump_prompt
from services.simulator.wire import Document, Json, deep_merge

MAIN = "Main"


@dataclass(slots=True)
class Version:
    """A committed version: its metadata and the agent's own fields at that time."""

    id: str
    branch_id: str
    number: int
    committed: int
    description: str
    parent: str | None
    content: Json


@dataclass(slots=True)
class Branch:
    id: str
    name: str
    description: str
    created: int
    parent: str | None
    versions: list[Version] = field(default_factory=list)


@dataclass(slots=True)
class StoredAgent:
    """An agent. `content` is its main branch: name, tags, conversation_config, platform_settings, …"""

    id: str
    seq: int
    created: int
    updated: int
    content: Json
    last_call: int | None = None
    branches: dict[str, Branch] = field(default_factory=dict)
    main: str = ""
    document: Document | None = None

    def version(self, version_id: str) -> Version | None:
        return next((v for b in self.branches.values() for v in b.versions if v.id == version_id), None)


class ElevenLabsStore:
    """Everything in the workspace. Times of writes come from `clock`, ids from the seed."""

    def __init__(self, count: int, seed: int, clock: Clock) -> None:
        self._clock = clock
        self._rng = random.Random(f"{seed}/elevenlabs/new")
        self._seq = 0
        self.agents: dict[str, StoredAgent] = {}
        self.tools: dict[str, tuple[int, Document]] = {}
        self.documents: dict[str, tuple[int, Document]] = {}
        shared = random.Random(f"{seed}/elevenlabs/shared")
        created = words.EPOCH_MS // 1000 - 100 * 86_400
        for index in range(min(40, max(6, count // 2)) if count else 0):
            tool_id = words.base32_id(shared, "tool_")
            self.tools[tool_id] = (self.next_seq(), Document(data.tool(index, tool_id, shared)))
        for index in range(max(2, count // 6) if count else 0):
            business = words.BUSINESSES[index % len(words.BUSINESSES)]
            text = f"<p>{business}: open Monday to Friday, 8:00–18:00. Closed on public holidays.</p>"
            doc = data.document(
                words.base32_id(shared, "", 20), f"Opening hours {business}", text, created, created + index
            )
            self.documents[doc["id"]] = (self.next_seq(), Document(doc))
        names = words.agent_names(words.ELEVENLABS_NAMES, count, random.Random(f"{seed}/elevenlabs/names"))
        for index, (name, locale) in enumerate(names):
            self._generate(random.Random(f"{seed}/elevenlabs/{index}"), index, name, locale.split("-")[0])

    def now(self) -> int:
        """Seconds since the epoch."""
        return self._clock.now() // 1000

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def new_id(self, prefix: str, length: int = 28) -> str:
        return words.base32_id(self._rng, prefix, length)

    def render(self, agent: StoredAgent) -> Document:
        """The agent as `GET agents/{id}` answers it; made once and kept until something changes."""
        if agent.document is None:
            branch = agent.branches.get(agent.main)
            newest = branch.versions[-1] if branch else None
            agent.document = self._document(agent, agent.content, agent.updated, newest)
        return agent.document

    def render_version(self, agent: StoredAgent, version: Version) -> Document:
        """The agent as it was at a version."""
        return self._document(agent, version.content, version.committed, version)

    def create(self, content: Json, versioning: bool = True) -> StoredAgent:
        """Store a new agent; `content` lacks ids and times."""
        now = self.now()
        full = {"name": "", "tags": [], "platform_settings": {}, **content}
        agent = StoredAgent(self.new_id("agent_"), self.next_seq(), now, now, full)
        self.agents[agent.id] = agent
        if versioning:
            self._enable_versioning(agent, self.new_id("agtbrch_"), self.new_id("agtvrsn_"))
        return agent

    def patch(
        self,
        agent: StoredAgent,
        patch: Json,
        branch_id: str = "",
        description: str = "",
        versioning: bool = True,
    ) -> Document:
        """Merge `patch` into a branch (main by default) and commit it. `branch_id` must exist."""
        now = max(self.now(), agent.updated + 1)
        if not agent.branches and versioning:
            self._enable_versioning(agent, self.new_id("agtbrch_"), self.new_id("agtvrsn_"))
        branch = agent.branches.get(branch_id or agent.main)
        before = branch.versions[-1].content if branch else agent.content
        content = deep_merge(before, patch)
        agent.updated = now
        agent.document = None
        if branch is None or branch.id == agent.main:
            agent.content = content
        if branch is None:
            return self.render(agent)
        version = self._commit(agent, branch, content, now, description, self.new_id("agtvrsn_"))
        return self.render_version(agent, version)

    def branch(self, agent: StoredAgent, parent: Version, name: str, description: str, patch: Json) -> Branch:
        """A new branch that starts at `parent`, with `patch` merged in."""
        now = self.now()
        branch = Branch(self.new_id("agtbrch_"), name, description, now, parent.branch_id)
        agent.branches[branch.id] = branch
        content = deep_merge(parent.content, patch)
        self._commit(agent, branch, content, now, description, self.new_id("agtvrsn_"), parent.id)
        return branch

    def replace_tool(self, tool_id: str, tool: Json) -> Document:
        """Store a changed tool; agents that use it show the change."""
        document = Document(tool)
        self.tools[tool_id] = (self.tools[tool_id][0], document)
        for agent in self.agents.values():
            agent.document = None
        return document

    def users_of_tool(self, tool_id: str) -> list[StoredAgent]:
        return [agent for agent in self.agents.values() if tool_id in _tool_ids(agent.content)]

    def edit(self, agent: StoredAgent, part: str, patch: Json) -> Json | None:
        """Change an agent as a person in the dashboard would; None when it has no such part.

        `part` is `engine` (the prompt, the default), `agent` (the voice's speed) or `tool` (its first tool).
        """
        if part == "tool":
            tool_id = next(iter(_tool_ids(agent.content)), "")
            if tool_id not in self.tools:
                return None
            tool = self.tools[tool_id][1].data
            config = tool["tool_config"]
            change = patch or {"description": bump_prompt(config["description"])}
            self.replace_tool(tool_id, {**tool, "tool_config": deep_merge(config, change)})
            return {"agent_id": agent.id, "part": part, "tool_id": tool_id}
        config = agent.content.get("conversation_config") or {}
        if part == "agent":
            speed = float((config.get("tts") or {}).get("speed", 1.0))
            change = {
                "conversation_config": {"tts": {"speed": 0.9 if speed >= 1.15 else round(speed + 0.05, 2)}}
            }
        else:
            text = str(((config.get("agent") or {}).get("prompt") or {}).get("prompt", ""))
            change = {"conversation_config": {"agent": {"prompt": {"prompt": bump_prompt(text)}}}}
        document = self.patch(agent, patch or change)
        return {"agent_id": agent.id, "part": part, "version_id": document.data["version_id"]}

    def _document(self, agent: StoredAgent, content: Json, updated: int, version: Version | None) -> Document:
        config = content.get("conversation_config") or {}
        tool_ids = _tool_ids(content)
        if tool_ids:
            tools = [self.tools[key][1].data["tool_config"] for key in tool_ids if key in self.tools]
            config = deep_merge(config, {"agent": {"prompt": {"tools": tools}}})
        return Document({
            "agent_id": agent.id,
            "name": content.get("name") or "",
            "conversation_config": config,
            "metadata": {"created_at_unix_secs": agent.created, "updated_at_unix_secs": updated},
            "platform_settings": content.get("platform_settings") or {},
            "phone_numbers": [],
            "whatsapp_accounts": [],
            **({"workflow": content["workflow"]} if content.get("workflow") else {}),
            "access_info": data.ACCESS,
            "tags": content.get("tags") or [],
            "version_id": version.id if version else None,
            "branch_id": version.branch_id if version else None,
            "main_branch_id": agent.main or None,
        })  # fmt: skip

    def _enable_versioning(self, agent: StoredAgent, branch_id: str, version_id: str) -> None:
        branch = Branch(branch_id, MAIN, "", agent.created, None)
        agent.branches[branch_id] = branch
        agent.main = branch_id
        agent.document = None
        self._commit(agent, branch, agent.content, agent.updated, "Initial version", version_id)

    @staticmethod
    def _commit(
        agent: StoredAgent,
        branch: Branch,
        content: Json,
        when: int,
        text: str,
        version_id: str,
        parent: str = "",
    ) -> Version:
        before = branch.versions[-1].id if branch.versions else parent or None
        version = Version(version_id, branch.id, len(branch.versions) + 1, when, text, before, content)
        branch.versions.append(version)
        return version

    def _generate(self, rng: random.Random, index: int, name: str, language: str) -> None:
        created = words.EPOCH_MS // 1000 - rng.randrange(20 * 86_400, 90 * 86_400)
        agent_id = words.base32_id(rng, "agent_")
        tool_ids = rng.sample(list(self.tools), min(len(self.tools), rng.randint(0, 7)))
        known = [document.data for _, document in self.documents.values()]
        documents = rng.sample(known, min(len(known), rng.choice((0, 0, 1, 2))))
        content: Json = {
            "name": name,
            "tags": rng.sample(["production", "pilot", "health", "retail", "überprüft"], rng.randint(0, 2)),
            "conversation_config": data.conversation_config(rng, index, name, language, tool_ids, documents),
            "platform_settings": data.platform_settings(rng, index),
        }
        if index % 3 == 0:
            content["workflow"] = {
                "edges": {},
                "nodes": {
                    "start_node": {"type": "start", "position": {"x": 0.0, "y": 0.0}, "edge_order": []}
                },
                "prevent_subagent_loops": False,
            }
        agent = StoredAgent(agent_id, self.next_seq(), created, created, content)
        agent.last_call = created + 86_400 if rng.random() < 0.7 else None
        self.agents[agent_id] = agent
        if index % 6 == 4:  # made before the vendor had versions
            return
        self._enable_versioning(agent, words.base32_id(rng, "agtbrch_"), words.base32_id(rng, "agtvrsn_"))
        for number in range(rng.randint(0, 4)):
            agent.updated += rng.randrange(600, 4 * 86_400)
            branch = agent.branches[agent.main]
            version_id = words.base32_id(rng, "agtvrsn_")
            self._commit(agent, branch, agent.content, agent.updated, f"Change {number + 1}", version_id)


def _tool_ids(content: Json) -> list[str]:
    config = content.get("conversation_config") or {}
    prompt = (config.get("agent") or {}).get("prompt") or {}
    return list(prompt.get("tool_ids") or [])
