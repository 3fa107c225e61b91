"""`callboard route` on the real services and the simulated models."""

from __future__ import annotations

import asyncio

import pytest

from services.storage import Database, DatabaseLocation
from services.storage.tables import Integration
from tests.app.test_knowledge_command import run  # noqa: F401
from tests.services.integrations.llm.world import add_agents
from tests.support.simulator import running_simulator


@pytest.fixture
def routed(run, tmp_path):  # noqa: F811
    """The command line of a company with three agents."""

    async def fill() -> None:
        database = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
        await database.write(lambda session: add_agents(session, "acme"))
        await database.aclose()

    asyncio.run(fill())
    return run


def model(tmp_path, url: str) -> None:
    async def add() -> None:
        database = await Database.open(DatabaseLocation(path=tmp_path / "callboard.db"))
        row = Integration(
            company_id=1,
            kind="llm",
            adapter="openai",
            name="local model",
            base_url=url,
            config='{"model": "sim-1", "price_in": 1, "price_out": 1}',
            created_at=1,
        )
        await database.write(lambda session: session.add(row))
        await database.aclose()

    asyncio.run(add())


def test_by_rules(routed):
    result = routed("route", "my invoice is wrong")
    assert result.code == 0
    assert result.out.splitlines()[0] == "Billing  (agent_billing)"
    assert "because no language model is configured" in result.out
    assert "callboard integration add openai" in result.err
    decision = routed("route", "Ich möchte einen Tisch", "--company", "acme", "--json").json["decision"]
    assert decision["agent"]["name"] == "Rezeption"
    assert (decision["source"], decision["cost"], decision["error"]) == ("rules", None, None)
    assert decision["actor"]


def test_nobody_fits(routed):
    result = routed("route", "qwertz")
    assert result.code == 1
    assert "No agent fits." in result.err
    missing = routed("route", "qwertz", "--json")
    assert (missing.code, missing.json["decision"]["agent"]) == (1, None)


def test_a_model_that_cannot_be_reached(routed, tmp_path):
    model(tmp_path, "http://127.0.0.1:9/v1")
    result = routed("route", "my invoice is wrong", "--knowledge", "--context", "calls from Berlin")
    assert result.code == 0
    assert "degraded: rules instead of the model, because local model (acme) (127.0.0.1:9)" in result.err
    assert "nothing listens there" in result.err
    decision = routed("route", "my invoice", "--json").json["decision"]
    assert decision["error"]["category"] == "transient"
    assert decision["degraded"].startswith("rules instead of the model, because local model (acme)")


async def test_a_model_decides(routed, tmp_path):
    async with running_simulator(agents=2) as simulator:
        await asyncio.to_thread(model, tmp_path, f"{simulator.partners_url}/llm/v1")
        # Its key is not stored yet, and the simulated endpoint wants one.
        refused = await asyncio.to_thread(routed, "route", "my invoice is wrong")
        await routed.secrets.set("integration/1", simulator.key)
        decided = await asyncio.to_thread(routed, "route", "my invoice is wrong")
        listed = await asyncio.to_thread(routed, "route", "--decisions")
    assert refused.code == 0
    assert "refused the key" in refused.err
    assert "degraded" in refused.err
    assert decided.out.splitlines() == ["Billing  (agent_billing)", "  Its words fit best"]
    assert "Decided by sim-1 of local model, 80% sure in" in decided.err
    assert "USD" in decided.err
    assert "50% by rules" in listed.err
    assert "sim-1" in listed.out


def test_past_decisions(routed):
    assert "Nothing was decided yet" in routed("route", "--decisions").err
    for request in ("my invoice", "broken device", "qwertz \x1b[2J"):
        routed("route", request)
    listed = routed("route", "--decisions", "--limit", "2")
    assert len(listed.out.splitlines()) == 3
    assert "Last 24 hours: 3 decisions, 100% by rules" in listed.err
    assert "\x1b" not in listed.out
    found = routed("route", "--decisions", "--company", "acme", "--json").json
    assert [row["request"] for row in found["decisions"]] == ["qwertz [2J", "broken device", "my invoice"]
    assert found["orchestrator"]["fallback_share"] == 1.0


def test_wrong_use(routed):
    for words in (
        (),
        (" ",),
        ("x", "--decisions"),
        ("x", "--company", "acne"),
        ("--decisions", "--limit", "0"),
    ):
        result = routed("route", *words)
        assert result.code == 2, words
        assert "error:" in result.err
    routed("company", "add", "globex")
    several = routed("route", "my invoice")
    assert several.code == 2
    assert "acme, globex" in several.err
    assert "no agents yet" in routed("route", "x", "--company", "globex").out
