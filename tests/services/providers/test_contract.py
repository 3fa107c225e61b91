"""Every request the clients send exists in the vendors' machine-readable specs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.model import Provider
from tests.support.rawserver import Reply, Seen, raw_server, reply

Connect = Callable[..., Any]
SPECS = {
    Provider.RETELL: "retell-derived-sdk6.2.13.openapi.json",
    Provider.ELEVENLABS: "elevenlabs-2026-08-22.openapi.json",
}


def load_spec(provider: Provider) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[3]
    folders = [os.environ.get("CALLBOARD_OPENAPI_DIR", ""), root.parent / "shared" / "openapi"]
    for folder in filter(None, folders):
        path = Path(folder) / SPECS[provider]
        if path.is_file():
            loaded: dict[str, Any] = json.loads(path.read_text())
            return loaded
    pytest.skip(f"{SPECS[provider]} not found: set CALLBOARD_OPENAPI_DIR to the folder of the vendor specs")


def everything(seen: Seen) -> Reply:
    """One answer that satisfies every method."""
    listed = {name: [] for name in ("items", "agents", "tools", "results")}
    ids = dict.fromkeys(("id", "agent_id", "llm_id", "conversation_flow_id", "org_id"), "x")
    return reply(
        {
            **listed,
            **ids,
            "has_more": "cursor" not in seen.target and "key=" not in seen.target,
            "next_cursor": "cursor",
            "pagination_key": "key",
        }
    )


async def use_retell(client: Any) -> None:
    await client.check()
    await client.list_agents()
    await client.list_llms()
    await client.list_flows()
    await client.list_agent_versions("agent_1")
    await client.agent("agent_1", version=2)
    await client.agent("agent_1", version="production")
    await client.llm("llm_1", version=0)
    await client.flow("conversation_flow_1", version=1)
    await client.concurrency()


async def use_elevenlabs(client: Any) -> None:
    await client.check()
    await client.list_agents()
    await client.list_tools()
    await client.list_branches("agent_1")
    await client.agent("agent_1", version_id="v", branch_id="b")
    await client.tool("tool_1")
    await client.version("agent_1", "v")
    await client.knowledge_document("doc_1")


@pytest.mark.parametrize(
    ("provider", "use"), [(Provider.RETELL, use_retell), (Provider.ELEVENLABS, use_elevenlabs)]
)
async def test_requests_exist_in_the_spec(connect: Connect, provider: Provider, use: Any) -> None:
    spec = load_spec(provider)
    async with raw_server(everything) as server, connect(server.url, provider) as client:
        await use(client)
    assert len(server.seen) >= 8
    for seen in server.seen:
        operation, shared = find(spec, seen)
        check_query(spec, seen, [*operation.get("parameters", []), *shared])
        if seen.body:
            content = operation["requestBody"]["content"]
            assert seen.headers["content-type"] in content
            assert isinstance(json.loads(seen.body), dict)
        else:
            assert not operation.get("requestBody", {}).get("required")


def find(spec: dict[str, Any], seen: Seen) -> tuple[dict[str, Any], list[Any]]:
    """The operation of a request: literal paths before those with parameters."""
    for template in sorted(spec["paths"], key=lambda path: path.count("{")):
        if re.fullmatch(re.sub(r"\\\{[^/]+?\\\}", "[^/]+", re.escape(template)), seen.path):
            item = spec["paths"][template]
            if seen.method.lower() in item:
                return item[seen.method.lower()], item.get("parameters", [])
    raise AssertionError(f"{seen.method} {seen.path} is in no path of the spec")


def check_query(spec: dict[str, Any], seen: Seen, parameters: list[Any]) -> None:
    known = {item["name"]: item for item in parameters if item["in"] == "query"}
    for name, value in seen.query.items():
        assert name in known, f"{seen.path} takes no {name}"
        assert any(allowed(option, value) for option in options(spec, known[name]["schema"])), (name, value)
    for name, item in known.items():
        assert not item.get("required") or name in seen.query


def options(spec: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        target: Any = spec
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return options(spec, target)
    return [
        choice
        for part in schema.get("anyOf", [schema])
        for choice in ([part] if part is schema else options(spec, part))
    ]


def allowed(schema: dict[str, Any], value: str) -> bool:
    if schema.get("type") == "integer":
        return value.lstrip("-").isdigit() and schema.get("minimum", 0) <= int(value) <= schema.get(
            "maximum", 10**9
        )
    return schema.get("type") == "string" and value in schema.get("enum", [value])
