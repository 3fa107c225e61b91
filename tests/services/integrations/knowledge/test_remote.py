"""A knowledge base elsewhere: used instead, marked as such, stood in for when it is down."""

from __future__ import annotations

import pytest
from sqlmodel import select

from services.errors import ServiceError, UsageError
from services.integrations.knowledge import Mode, SourceKind
from services.integrations.model import Kind
from services.resilience import Limits, MemoryWindows, RateLimiter
from services.storage.tables import Audit
from tests.services.integrations.knowledge.world import World, world_on
from tests.support.rawserver import raw_server, reply
from tests.support.simulator import running_simulator

CANARY = "canary-key-0123456789"


@pytest.fixture
async def simulator():
    async with running_simulator(agents=2, key=CANARY) as running:
        yield running


@pytest.fixture
async def world(tmp_path, simulator):
    gateways = {"knowledge": (f"{simulator.partners_url}/knowledge", CANARY)}
    async with world_on(tmp_path, gateways=gateways) as world:
        yield world


async def test_the_environments_service_is_used(world):
    answer = await world.knowledge.search("acme", "May I bring dogs?")
    assert (answer.mode, answer.origin, answer.degraded) == (Mode.REMOTE, "knowledge gateway", "")
    hit = answer.hits[0]
    assert (hit.title, hit.uri) == ("House rules", "https://knowledge.example/house-rules")
    assert "Dogs are welcome" in hit.text
    assert 0 < hit.score <= 1
    [source] = await world.knowledge.sources("acme")
    assert (source.title, source.kind) == ("House rules", SourceKind.REMOTE)
    assert (await world.knowledge.status("acme")).remote == "knowledge gateway"


async def test_documents_are_read_here_and_sent_there(world, simulator):
    done = await world.knowledge.ingest_file("acme", ("p.html", b"<html><h1>Pool</h1>Open in <b>summer</b>."))
    assert done.source.kind is SourceKind.REMOTE
    assert (await world.knowledge.search("acme", "summer pool")).hits[0].title == "Pool"
    await world.knowledge.ingest_file("acme", ("p.html", b"<html><h1>Pool</h1>Open in <b>summer</b>."))
    assert len(await world.knowledge.sources("acme")) == 2
    assert (await world.knowledge.search("globex", "summer pool")).hits == ()
    with pytest.raises(UsageError) as caught:
        await world.knowledge.refresh("acme", "Pool")
    assert caught.value.code == "remote_knowledge"
    assert (await world.knowledge.remove("acme", "pool")).title == "Pool"
    assert len(await world.knowledge.sources("acme")) == 1
    with pytest.raises(UsageError):
        await world.knowledge.remove("acme", "pool")
    audit = await world.database.read(lambda session: session.exec(select(Audit.action)).all())
    assert list(audit) == ["knowledge.add", "knowledge.add", "knowledge.remove"]


async def test_while_it_is_down_the_local_one_answers_and_says_so(tmp_path, simulator, fake_time):
    where = f"{simulator.partners_url}/knowledge"
    async with world_on(tmp_path, fake_time) as world:
        await world.knowledge.ingest_text("acme", "The pool is open in summer.", title="Local notes")
        await world.integrations.add("http-knowledge", company="acme", base_url=where, secret=CANARY)
        await simulator.fault("503:knowledge")
        answer = await world.knowledge.search("acme", "pool")
        assert (answer.mode, answer.origin) == (Mode.TEXT, "local")
        assert answer.hits[0].title == "Local notes"
        assert answer.degraded.startswith(
            "the knowledge base on this machine instead, because http-knowledge (acme) answered 503"
        )
        assert answer.failure is not None
        assert answer.age is None
        with pytest.raises(ServiceError) as caught:
            await world.knowledge.search("acme", "zebra")
        assert "503" in caught.value.message or "http-knowledge" in caught.value.message
        await simulator.clear_faults()
        policy = world.policies.find("http-knowledge (acme)")
        assert policy is not None
        assert policy.stats.degraded == 1
        await policy.breaker.reset()
        assert (await world.knowledge.search("acme", "dogs")).mode is Mode.REMOTE
        assert (await world.knowledge.search("globex", "pool")).origin == "local"


async def test_while_it_is_down_an_earlier_answer_stands_in_with_its_age(tmp_path, simulator, fake_time):
    where = f"{simulator.partners_url}/knowledge"
    async with world_on(tmp_path, fake_time) as world:
        await world.knowledge.ingest_text("acme", "Dogs bark.", title="Local notes")
        await world.integrations.add("http-knowledge", company="acme", base_url=where, secret=CANARY)
        live = await world.knowledge.search("acme", "May I bring dogs?")
        assert (live.degraded, live.age, live.failure) == ("", None, None)
        await simulator.fault("503:knowledge")
        fake_time.seconds += 240
        answer = await world.knowledge.search("acme", "may I bring DOGS?")
        assert answer.hits == live.hits
        assert (answer.mode, answer.origin) == (Mode.REMOTE, "http-knowledge (acme)")
        assert answer.age == pytest.approx(240, abs=30)
        assert "as of" in answer.degraded
        assert "ago, because http-knowledge (acme) answered 503" in answer.degraded
        # Not of another question, number or company, and not for ever.
        other = await world.knowledge.search("acme", "May I bring dogs?", limit=2)
        assert other.origin == "local"
        with pytest.raises(ServiceError):
            await world.knowledge.search("acme", "zebra")
        fake_time.seconds += 700
        assert (await world.knowledge.search("acme", "May I bring dogs?")).origin == "local"


async def test_a_wrong_key_and_its_probe(tmp_path, simulator, caplog):
    async with world_on(tmp_path) as world:
        wrong = "canary-wrong-987654321"
        info = await world.integrations.add(
            "http-knowledge", company="acme", base_url=f"{simulator.partners_url}/knowledge", secret=wrong
        )
        with pytest.raises(ServiceError) as caught:
            await world.knowledge.search("acme", "dogs")
        assert caught.value.category == "authentication"
        assert wrong not in repr(caught.value) + caught.value.advice + caplog.text
        where = await world.integrations.resolve(Kind.KNOWLEDGE, 1, adapter="http-knowledge")
        with pytest.raises(ServiceError):
            await world.knowledge.probe(where)
        await world.integrations.set_secret(info.id, CANARY)
        where = await world.integrations.resolve(Kind.KNOWLEDGE, 1, adapter="http-knowledge")
        assert await world.knowledge.probe(where) == "It answers"


async def test_a_probe_counts_against_nobody(tmp_path, simulator, fake_time):
    limiter = RateLimiter(MemoryWindows(fake_time), account=Limits(minute=1, hour=0, day=0, burst=0))
    async with world_on(tmp_path, fake_time, limiter=limiter) as world:
        await world.integrations.add(
            "http-knowledge",
            company="acme",
            base_url=f"{simulator.partners_url}/knowledge",
            secret=CANARY,
        )
        where = await world.integrations.resolve(Kind.KNOWLEDGE, 1, adapter="http-knowledge")
        for _ in range(3):
            assert await world.knowledge.probe(where) == "It answers"
        assert await world.knowledge.sources("acme")
        with pytest.raises(ServiceError, match="this account has used up"):
            await world.knowledge.sources("acme")


@pytest.mark.parametrize(
    "answer",
    [
        reply({"results": []}),
        reply({"hits": "none"}),
        reply({"hits": [{"title": "no text"}]}),
        reply([1, 2]),
        reply(body="<html>login</html>", content_type="text/html"),
        reply(body="{"),
    ],
)
async def test_answers_that_do_not_keep_the_contract(tmp_path, fake_time, answer):
    async with raw_server(lambda seen: answer) as server, world_on(tmp_path, fake_time) as world:
        await world.integrations.add("http-knowledge", company="acme", base_url=server.url)
        with pytest.raises(ServiceError) as caught:
            await world.knowledge.search("acme", "dogs")
        assert caught.value.advice


async def test_odd_members_are_made_harmless(tmp_path, fake_time):
    odd = {
        "text": "x" * 50_000,
        "title": "a\x1b[2Jb",
        "score": "high",
        "ordinal": -1,
        "uri": 7,
        "source_id": None,
    }
    async with (
        raw_server(lambda seen: reply({"hits": [odd] * 300})) as server,
        world_on(tmp_path, fake_time) as world,
    ):
        await world.integrations.add("http-knowledge", company="acme", base_url=server.url)
        answer = await world.knowledge.search("acme", "dogs", limit=3)
        assert len(answer.hits) == 3
        hit = answer.hits[0]
        assert (len(hit.text), hit.title, hit.score, hit.ordinal, hit.uri) == (20_000, "a[2Jb", 0.0, 0, "")


async def test_the_contract_by_get(world: World, simulator):
    """What the simulated service offers besides: the same search in the query string."""
    import httpx

    async with httpx.AsyncClient(trust_env=False) as client:
        found = await client.get(
            f"{simulator.partners_url}/knowledge/search",
            params={"query": "dogs", "limit": 1},
            headers={"authorization": f"Bearer {CANARY}"},
        )
    assert found.json()["hits"][0]["title"] == "House rules"
