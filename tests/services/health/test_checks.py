"""What single checks find: connections and agents against the simulator, the rest against real parts."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from dataclasses import replace

import pytest
from sqlmodel import select

from services.agents import SyncRequest
from services.agents.bundles import BundlePart
from services.errors import VaultLocked
from services.health.alerts import AlertDesk
from services.health.checks import CatalogOptions, StandardCatalog, integrations
from services.health.checks.agents import AgentRow, for_a_while, judge
from services.health.checks.connections import Accounts
from services.health.checks.endpoints import Endpoints, Host, host_of, is_public
from services.health.checks.needs import Needs, read_needs
from services.health.checks.system import (
    AudioProbe,
    DatabaseProbe,
    DiskProbe,
    LeaseProbe,
    OrchestratorProbe,
    RedisProbe,
    SecretsProbe,
)
from services.health.doctor import Finding, Level
from services.health.model import HealthState, Overall
from services.health.service import HealthOptions, HealthService
from services.integrations.model import IntegrationCheck, IntegrationInfo, Kind, Origin
from services.model import Drift, ErrorInfo, Provider, SyncStatus
from services.resilience import limit_time
from services.schedule.ledger import take_lease
from services.security import MemoryStore
from services.storage import Database, DatabaseLocation
from services.storage.tables import Agent, Bundle, LlmDecision
from tests.support.servers import free_port
from tests.support.simulator import running_simulator
from tests.support.world import START, FakeClock, services_on

HOUR = 3_600_000
RETELL, ELEVENLABS = "provider:acme/retell", "provider:acme/elevenlabs"


# -- the whole, against the simulator -------------------------------------------------------------


@pytest.fixture
async def simulator():
    async with running_simulator(agents=8) as running:
        yield running


@pytest.fixture
async def program(simulator, tmp_path):
    """The services on the simulator, and a health service that probes when it is asked."""
    async with services_on(simulator, tmp_path) as services:
        catalog = StandardCatalog(
            services.open_database,
            services.open_secrets,
            services.reader,
            services.companies,
            services.clients,
            services.clock,
            CatalogOptions(services.options.database, tmp_path),
            audio=False,
        )
        desk = AlertDesk(
            services.open_database, services.open_secrets, services.policies, services.bus, services.clock
        )
        health = HealthService(
            services.open_database,
            catalog,
            services.policies,
            desk,
            services.bus,
            services.clock,
            HealthOptions(quiet=0),
        )
        yield services, health
        await health.aclose()


def check_of(health: HealthService, check_id: str):
    return next(check for check in health.view().checks if check.id == check_id)


async def test_a_whole_company_is_watched(program) -> None:
    services, health = program
    await services.sync.run(SyncRequest())
    view = await health.check_now()
    assert (view.overall, view.reason) == (Overall.HEALTHY, "")
    assert {check.state for check in view.checks} == {HealthState.UP}
    retell = check_of(health, RETELL)
    assert dict(retell.facts)["lines"].endswith(" of 20 calls at once")
    assert retell.breaker is not None
    assert retell.took_ms is not None
    assert retell.simulated
    assert sum(check.kind == "agent" for check in view.checks) == 8
    assert retell.dependents + check_of(health, ELEVENLABS).dependents == 8


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("503:retell", "503"),
        ("drop:retell", "connection"),
        ("html:retell", "web page"),
        ("shape:retell", "cannot be used"),
        ("revoke:retell", "key"),
        ("permission:retell", "permission"),
    ],
)
async def test_the_vendors_faults_are_found_and_their_end_without_help(
    program, simulator, fault, words
) -> None:
    _, health = program
    await simulator.fault(fault)
    view = await health.check_now([RETELL, ELEVENLABS], confirm=True)
    assert check_of(health, RETELL).state is HealthState.DOWN
    assert words in check_of(health, RETELL).message.lower()
    assert check_of(health, RETELL).advice
    assert check_of(health, ELEVENLABS).state is HealthState.UP
    assert view.overall is Overall.UNHEALTHY
    await simulator.clear_faults()
    view = await health.check_now([RETELL])
    assert view.overall is Overall.HEALTHY
    assert check_of(health, RETELL).last_error


async def test_too_many_requests_is_a_sign_of_life(program, simulator) -> None:
    _, health = program
    await simulator.fault("429:retell:retry-after=1")
    await health.check_now([RETELL])
    assert check_of(health, RETELL).state is HealthState.DEGRADED


async def test_agents_of_a_vendor_that_is_down_are_held_and_tell_nobody(program, simulator) -> None:
    services, health = program
    await services.sync.run(SyncRequest())
    await simulator.fault("503:retell")
    await health.check_now(confirm=True)
    held = [check for check in health.view().checks if check.held_by]
    assert {check.held_by for check in held} == {"Retell"}
    assert all(check.kind == "agent" for check in held)
    assert [each.check_id for each in await health.incidents()] == [RETELL]


async def test_a_mirror_that_missed_a_sync_is_told(program) -> None:
    services, health = program
    await services.sync.run(SyncRequest())
    services.clock.advance(hours=3)
    view = await health.check_now(confirm=True)
    assert view.overall is Overall.DEGRADED
    agent = next(check for check in view.checks if check.kind == "agent")
    assert agent.message == "Its mirror is 3 h old"


async def test_new_connections_and_agents_are_watched_at_once(program) -> None:
    services, health = program
    await health.check_now()
    assert not [check for check in health.view().checks if check.kind == "agent"]
    await services.sync.run(SyncRequest())
    await health.check_now()
    assert len([check for check in health.view().checks if check.kind == "agent"]) == 8
    await services.companies.remove_connection("acme", "retell")
    await health.check_now()
    assert RETELL not in [check.id for check in health.view().checks]


# -- agents ---------------------------------------------------------------------------------------

ROW = AgentRow(
    7, "Front desk", "acme", 1, Provider.RETELL, SyncStatus.SYNCED, Drift.IN_SYNC, "v3 published",
    START, None, None, None, 5,
)  # fmt: skip


NOTHING = Needs()


async def judged(row: AgentRow = ROW, needs: Needs = NOTHING, gone=(), **hosts: bool):
    async def resolve(name: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    async def connect(host: Host, address: str) -> None:
        if not hosts.get(host.name.partition(".")[0], True):
            raise ConnectionRefusedError

    endpoints = Endpoints(FakeClock(), resolve=resolve, connect=connect)
    await endpoints.look({host for url in (*needs.webhooks, *needs.tool_urls) if (host := host_of(url))})
    return judge(row, needs, gone, endpoints, START, HOUR)


async def test_a_good_agent() -> None:
    needs = Needs(webhooks=frozenset({"https://hooks.acme.io/x"}), tools=3)
    found = await judged(needs=needs)
    assert (found.state, found.message) == (HealthState.UP, "mirror fresh · webhook reachable · 3 tools")


async def test_what_is_wrong_with_an_agent_is_told_the_gravest_first() -> None:
    needs = Needs(
        webhooks=frozenset({"https://hooks.acme.io/x"}),
        tool_urls=frozenset({"https://api.acme.io/a", "https://api.acme.io/b"}),
        missing=(("tool", "tool_9"),),
    )
    row = replace(
        ROW, status=SyncStatus.ERROR, error_message="It uses llm_1, which is gone", drift=Drift.CONFLICT
    )
    found = await judged(row, needs, [("knowledge base", "kb_1")], hooks=False, api=False)
    assert found.state is HealthState.DEGRADED
    assert found.message == "It uses llm_1, which is gone (and 5 more)"
    assert [text for label, text in found.facts if label == "also"] == [
        "It uses the tool tool_9, which Retell does not have",
        "It uses the knowledge base kb_1, which Retell does not have",
        "Its webhook host hooks.acme.io cannot be used: the connection was refused",
        "Its tool host api.acme.io cannot be used: the connection was refused",
        "It was changed here and at the vendor",
    ]


@pytest.mark.parametrize(
    ("drift", "hours", "message"),
    [
        (Drift.LOCAL_AHEAD, 23, ""),
        (Drift.LOCAL_AHEAD, 24, "Its edits made here are 24 h old and not at Retell"),
        (Drift.REMOTE_AHEAD, 23, ""),
        (Drift.REMOTE_AHEAD, 72, "What was changed at Retell is 3 days old and not taken over here"),
        (Drift.IN_SYNC, 72, ""),
    ],
)
async def test_work_on_one_side_is_told_when_it_was_left_lying(drift, hours, message) -> None:
    found = await judged(replace(ROW, drift=drift, drifted_at=START - hours * HOUR))
    assert (found.state is HealthState.DEGRADED) == bool(message)
    assert not message or found.message == message
    assert (dict(found.facts).get("drift", "") != "") == (drift is not Drift.IN_SYNC)


async def test_since_when_an_agent_is_ahead_is_read_in_the_mirror(program) -> None:
    """In the bundle of the side that is ahead."""
    services, health = program
    await services.sync.run(SyncRequest())

    def edit(session) -> str:
        agent = session.exec(select(Agent)).first()
        edited = Bundle(agent_id=agent.id, digest="edited", content="[]", created_at=services.clock.now())
        session.add(edited)
        session.flush()
        agent.local_bundle_id, agent.drift = edited.id, Drift.LOCAL_AHEAD.value
        return f"agent:{agent.id}"

    check_id = await (await services.open_database()).write(edit)
    await health.check_now()
    assert check_of(health, check_id).state is HealthState.UP
    services.clock.advance(hours=25)
    await services.sync.run(SyncRequest())
    await health.check_now([check_id])
    assert check_of(health, check_id).message.startswith("Its edits made here are 25 h old and not at ")


async def test_an_agent_that_was_never_synced_is_not_known() -> None:
    found = await judged(replace(ROW, status=SyncStatus.PENDING, checked_at=None, bundle_id=None))
    assert found.state is HealthState.PENDING


def parts(kind_and_data) -> list[BundlePart]:
    return [
        BundlePart(kind, str(place), json.dumps(data)) for place, (kind, data) in enumerate(kind_and_data)
    ]


def test_what_a_retell_agent_needs() -> None:
    agent = {"voice_id": "v1", "fallback_voice_ids": ["v2"], "webhook_url": "https://hooks.acme.io/x"}
    engine = {
        "knowledge_base_ids": ["kb1"],
        "general_tools": [{"type": "end_call"}, {"type": "custom", "url": "https://a.acme.io/f"}],
        "states": [{"tools": [{"type": "custom", "url": "https://b.acme.io/g"}]}, "odd"],
    }
    needs = read_needs(Provider.RETELL, parts([("agent", agent), ("engine", engine)]))
    assert needs.webhooks == {"https://hooks.acme.io/x"}
    assert needs.tool_urls == {"https://a.acme.io/f", "https://b.acme.io/g"}
    assert (needs.documents, needs.voices, needs.tools) == ({"kb1"}, {"v1", "v2"}, 3)


def test_what_an_elevenlabs_agent_needs() -> None:
    prompt = {
        "tool_ids": ["0", "gone"],
        "knowledge_base": [{"type": "file", "id": "d1"}, {"type": "folder", "id": "f1"}, 7],
        "custom_llm": {"url": "https://llm.acme.io/v1"},
    }
    agent = {"conversation_config": {"agent": {"prompt": prompt}, "tts": {"voice_id": "v1"}}}
    tool = {"tool_config": {"type": "webhook", "api_schema": {"url": "https://a.acme.io/{id}"}}}
    needs = read_needs(Provider.ELEVENLABS, parts([("tool", tool), ("agent", agent)]))
    assert needs.tool_urls == {"https://a.acme.io/{id}", "https://llm.acme.io/v1"}
    assert (needs.missing, needs.documents, needs.voices) == ((("tool", "gone"),), {"d1"}, {"v1"})


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize("odd", [None, [], 7, "x", {"conversation_config": 3, "response_engine": []}])
def test_odd_documents_need_nothing(provider: Provider, odd: object) -> None:
    assert read_needs(provider, parts([("agent", odd), ("engine", odd), ("tool", odd)])).tool_urls == set()


async def test_hosts_that_never_answer_keep_no_round_from_its_end() -> None:
    """A look that was given up goes on with those that it did not come to."""
    tried: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        tried.append(name)
        if name.startswith("hangs"):
            await asyncio.Event().wait()
        return ["93.184.215.14"]

    async def connect(host: Host, address: str) -> None:
        pass

    clock = FakeClock()
    endpoints = Endpoints(clock, resolve=resolve, connect=connect)
    hosts = {Host(f"host{place}.acme.io", 443, True) for place in range(4)}
    await endpoints.look(hosts)
    clock.advance(hours=1)
    limit_time(0.2)
    hanging = {Host(f"hangs{place}.acme.io", 443, True) for place in range(30)}
    tried.clear()
    await for_a_while(endpoints.look(hosts | hanging))
    assert tried
    assert all(name.startswith("hangs") for name in tried)  # nothing was known of them
    assert all(endpoints.known(host).ok for host in hosts)
    # Those that were known are next, before they are tried a second time.
    tried.clear()
    limit_time(60.0)
    await for_a_while(endpoints.look(hosts))
    assert sorted(tried) == sorted(host.name for host in hosts)


# -- hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Hooks.Acme.io/x?y=1", Host("hooks.acme.io", 443, True)),
        ("http://acme.io:8080", Host("acme.io", 8080, False)),
        ("wss://acme.io./llm", Host("acme.io", 443, True)),
        ("https://{{host}}/x", None),
        ("ftp://acme.io", None),
        ("acme.io/x", None),
        ("https://acme.io:99999", None),
        ("https://[half", None),
    ],
)
def test_where_a_url_leads(url: str, host: Host | None) -> None:
    assert host_of(url) == host


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "::1", "fe80::1", "fd00::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "not an address",
    ],
)  # fmt: skip
def test_addresses_that_nobody_may_have_us_try(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert is_public("93.184.215.14")
    assert is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


async def look(host: Host, *, addresses=("93.184.215.14",), error: Exception | None = None, local=False):
    tried: list[str] = []

    async def resolve(name: str, port: int) -> list[str]:
        return list(addresses)

    async def connect(target: Host, address: str) -> None:
        tried.append(address)
        if error is not None:
            raise error

    endpoints = Endpoints(FakeClock(), local=local, resolve=resolve, connect=connect)
    await endpoints.look({host})
    return endpoints.known(host), tried


async def test_private_addresses_and_examples_are_not_tried() -> None:
    host = Host("hooks.acme.io", 443, True)
    found, tried = await look(host, addresses=("10.0.0.1", "127.0.0.1"))
    assert (found.ok, tried) == (None, [])
    found, tried = await look(Host("hooks.example.com", 443, True))
    assert (found.ok, tried) == (None, [])
    # A name with a public and a private address is tried at the public one only.
    found, tried = await look(host, addresses=("10.0.0.1", "93.184.215.14"))
    assert (found.ok, tried) == (True, ["93.184.215.14"])
    found, tried = await look(host, addresses=("127.0.0.1",), local=True)
    assert (found.ok, tried) == (True, ["127.0.0.1"])


@pytest.mark.parametrize(
    ("error", "remark"),
    [
        (TimeoutError(), "no answer in time"),
        (ConnectionRefusedError(), "the connection was refused"),
        (socket.gaierror(), "the name cannot be resolved"),
        (ssl.SSLError(), "no TLS connection could be made"),
        (OSError(), "it cannot be reached"),
    ],
)
async def test_why_a_host_cannot_be_used(error: Exception, remark: str) -> None:
    found, _ = await look(Host("acme.io", 443, True), error=error)
    assert (found.ok, found.remark) == (False, remark)


async def test_a_host_is_tried_once_for_all_and_not_again_at_once() -> None:
    clock, tried = FakeClock(), []

    async def resolve(name: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    async def connect(host: Host, address: str) -> None:
        tried.append(host.name)
        if host.name == "bad.io":
            raise OSError

    endpoints = Endpoints(clock, resolve=resolve, connect=connect)
    hosts = {Host("good.io", 443, True), Host("bad.io", 443, True)}
    await endpoints.look(hosts)
    await endpoints.look(hosts)
    assert sorted(tried) == ["bad.io", "good.io"]
    clock.advance(seconds=90)
    await endpoints.look(hosts)
    assert sorted(tried) == ["bad.io", "bad.io", "good.io"]
    await endpoints.look(set())
    assert endpoints.known(Host("good.io", 443, True)).ok is None


async def test_a_real_connection_says_nothing() -> None:
    received = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoints = Endpoints(FakeClock(), local=True)
    good, bad = Host("localhost", port, False), Host("localhost", free_port(), False)
    await endpoints.look({good, bad})
    server.close()
    await server.wait_closed()
    assert endpoints.known(good).ok is True
    assert endpoints.known(bad).ok is False
    assert received == [b""]


# -- what the program stands on -------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request, tmp_path):
    if request.param == "sqlite":
        where = DatabaseLocation(path=tmp_path / "callboard.db")
    else:
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    opened = await Database.open(where)
    yield opened
    await opened.aclose()


async def test_the_database_is_asked(database) -> None:
    async def opened() -> Database:
        return database

    found = await DatabaseProbe(opened, database.where, FakeClock())()
    facts = dict(found.facts)
    assert found.state is HealthState.UP
    assert found.took_ms is not None
    assert facts["version"].startswith("SQLite" if database.where.is_sqlite else "PostgreSQL")
    assert ("write-ahead log" in facts) == database.where.is_sqlite
    assert "pass" not in repr(facts).lower()


async def test_who_runs_the_schedule(database) -> None:
    async def opened() -> Database:
        return database

    clock = FakeClock()
    probe = LeaseProbe(opened, clock)
    assert (await probe()).message == "nobody runs the schedule at the moment"
    now = clock.now()
    await database.write(lambda session: take_lease(session, "server:42:ab", now, 20_000))
    found = await probe()
    assert (found.state, found.message) == (HealthState.UP, "run by server, process 42")
    clock.advance(minutes=10)
    assert (await probe()).state is HealthState.DEGRADED


class Locked(MemoryStore):
    label = "encrypted file"
    locked = True


async def test_a_locked_store_matters_where_keys_are_needed() -> None:
    async def opened() -> Locked:
        return Locked()

    async def yes() -> bool:
        return True

    async def no() -> bool:
        return False

    assert (await SecretsProbe(opened, FakeClock(), yes)()).state is HealthState.DOWN
    assert (await SecretsProbe(opened, FakeClock(), no)()).state is HealthState.UP

    async def refuses() -> MemoryStore:
        raise VaultLocked("It needs its passphrase", advice="Type it")

    found = await SecretsProbe(refuses, FakeClock(), yes)()
    assert (found.state, found.category) == (HealthState.DOWN, "authentication")


@pytest.mark.parametrize(("free", "state"), [(10**10, "up"), (50 * 2**20, "degraded"), (2**20, "down")])
async def test_the_disk(tmp_path, free: int, state: str) -> None:
    found = await DiskProbe(tmp_path / "not" / "there", free_space=lambda folder: free)()
    assert found.state.value == state


async def test_redis_that_is_lost_only_degrades() -> None:
    found = await RedisProbe(f"redis://127.0.0.1:{free_port()}/0", FakeClock())()
    assert found.state is HealthState.DEGRADED
    assert "each process" in found.message


async def test_a_machine_without_sound_is_none_the_worse() -> None:
    async def ask():
        return [Finding("audio", Level.WARN, "0 devices in, 0 devices out", "Connect one")]

    assert (await AudioProbe(ask)()).state is HealthState.UP


async def test_what_a_key_may_not_know_is_asked_seldom(simulator, tmp_path) -> None:
    await simulator.fault("permission:elevenlabs:usage")
    async with services_on(simulator, tmp_path) as services:
        connection = await services.companies.connection("acme", "elevenlabs")
        client = await services.clients.client(connection)
        accounts = Accounts(services.clock)
        assert await accounts.usages(connection.id, client) == []
        asked = client.stats.requests
        assert asked > 0
        assert await accounts.usages(connection.id, client) == []
        assert client.stats.requests == asked
        services.clock.advance(hours=2)
        await accounts.usages(connection.id, client)
        assert client.stats.requests > asked


# -- integrations and the orchestrator ------------------------------------------------------------


class FakeIntegrations:
    def __init__(self, found: IntegrationCheck) -> None:
        self.found = found

    async def check(self, info: IntegrationInfo) -> IntegrationCheck:
        return self.found


HUBSPOT = IntegrationInfo(
    3, 1, "acme", Kind.CRM, "hubspot", "HubSpot", "https://api.hubapi.com", origin=Origin.COMPANY
)


@pytest.mark.parametrize(
    ("found", "state", "message"),
    [
        (IntegrationCheck(HUBSPOT, True, "portal 42", 120), "up", "portal 42"),
        (
            IntegrationCheck(HUBSPOT, False, "", 80, ErrorInfo("authentication", "The key was refused", "")),
            "down",
            "The key was refused",
        ),
        (
            IntegrationCheck(HUBSPOT, False, "", 5, ErrorInfo("rate_limit", "Too many", "Wait")),
            "degraded",
            "Too many",
        ),
        (
            IntegrationCheck(
                HUBSPOT, False, "", 5, ErrorInfo("permanent", "Not listed", "Choose"), "model_not_listed"
            ),
            "degraded",
            "Not listed",
        ),
    ],
)
async def test_an_integration_is_tested(found: IntegrationCheck, state: str, message: str) -> None:
    reading = await integrations.read(HUBSPOT, FakeIntegrations(found), Endpoints(FakeClock()))
    assert (reading.state.value, reading.message) == (state, message)
    assert reading.took_ms == found.took_ms
    assert reading.advice or state == "up"


async def test_an_integration_without_a_test_is_looked_at_from_outside() -> None:
    service = FakeIntegrations(IntegrationCheck(HUBSPOT, False, "it cannot be tested", code="untestable"))

    async def resolve(name: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    async def refuse(host: Host, address: str) -> None:
        raise ConnectionRefusedError

    async def accept(host: Host, address: str) -> None:
        return None

    down = await integrations.read(HUBSPOT, service, Endpoints(FakeClock(), resolve=resolve, connect=refuse))
    assert (down.state, down.message) == (
        HealthState.DOWN,
        "api.hubapi.com cannot be used: the connection was refused",
    )
    up = await integrations.read(HUBSPOT, service, Endpoints(FakeClock(), resolve=resolve, connect=accept))
    assert up.state is HealthState.UP


async def test_a_simulation_says_that_it_is_one() -> None:
    simulated = replace(HUBSPOT, id=None, adapter="simulated", origin=Origin.SIMULATION)
    found = await integrations.read(simulated, FakeIntegrations(None), Endpoints(FakeClock()))
    assert (found.state, found.simulated) == (HealthState.UP, True)


async def test_an_orchestrator_whose_model_fails_is_degraded(database) -> None:
    async def opened() -> Database:
        return database

    clock = FakeClock()
    probe = OrchestratorProbe(opened, clock)
    assert (await probe()).message == "no decision in the last 24 hours"

    def decide(place: int, source: str, error: str | None):
        row = LlmDecision(
            id=f"d{place}", at=clock.now() + place, source=source, error_category=error, error_message="gone"
        )
        return database.write(lambda session: session.add(row))

    for place in range(5):
        await decide(place, "rules", "transient")
    found = await probe()
    assert (found.state, found.category) == (HealthState.DEGRADED, "transient")
    assert dict(found.facts)["the last time because"] == "gone"
    await decide(5, "model", None)
    assert (await probe()).state is HealthState.UP
