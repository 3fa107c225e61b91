"""Vectors: made in batches by the simulated endpoint, ranked in three ways that agree."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlite_vec
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import col, select, text, update

from services.errors import ServiceError
from services.integrations.knowledge import Mode, vectors
from services.integrations.knowledge.vectors import (
    EXACT,
    PGVECTOR,
    SQLITE_VEC,
    VectorSearch,
    pack,
    unit,
    unpack,
)
from services.integrations.model import Kind
from services.resilience import Limits, MemoryWindows, RateLimiter, Subject
from services.storage import DatabaseLocation
from services.storage.tables import KnowledgeChunk, KnowledgeSource
from tests.services.integrations.knowledge.world import World, world_on
from tests.support.servers import running_postgres
from tests.support.simulator import RunningSimulator, running_simulator

ROOT = Path(__file__).resolve().parents[4]
GUIDE = """# Guide

## Opening hours
Monday to Friday from 8 to 18.

## Rooms
A single room is 80 euro a night.

## Pets
Dogs are welcome in every house.

## Leaving
Check out until eleven.
"""


@pytest.fixture
async def simulator():
    async with running_simulator(agents=2) as running:
        yield running


@pytest.fixture
async def world(tmp_path):
    async with world_on(tmp_path) as world:
        yield world


async def embeddings(world: World, simulator: RunningSimulator, company: str = "acme", **config: str):
    return await world.integrations.add(
        "embeddings",
        company=company,
        base_url=f"{simulator.partners_url}/llm/v1",
        config={"model": "sim-embed", **config},
        secret=simulator.key,
    )


async def stored(world: World) -> list[bytes | None]:
    query = select(KnowledgeChunk.embedding).order_by(col(KnowledgeChunk.ordinal))
    return await world.database.read(lambda session: list(session.exec(query)))


FLOATS = st.floats(-1e3, 1e3, width=32)


@given(st.lists(FLOATS, min_size=1, max_size=40))
def test_stored_vectors_are_of_unit_length(values):
    if not any(abs(value) > 1e-3 for value in values):
        return
    raw = pack(unit(values))
    assert len(raw) == 4 * len(values)
    back = unpack(raw)
    assert math.isclose(sum(value * value for value in back), 1, rel_tol=1e-5)
    # Little-endian whatever the machine is.
    assert np.frombuffer(raw, "<f4").tolist() == back.tolist()


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [float("nan")], [float("inf")], ["x"], [None], [1e39], [1.0] * 20_000]
)
def test_what_is_no_vector(values):
    with pytest.raises(ServiceError):
        unit(values)


async def test_meaning_finds_what_words_do_not(world, simulator):
    seen = []
    await embeddings(world, simulator, batch="2")
    done = await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True, progress=seen.append)
    assert (done.source.embedding_model, done.degraded) == ("sim-embed", "")
    steps = [(progress.done, progress.total) for progress in seen if progress.step == "embedding"]
    assert steps == [(0, 4), (2, 4), (2, 4), (4, 4)]
    answer = await world.knowledge.search("acme", "what does it cost?")
    assert (answer.mode, answer.degraded) == (Mode.BOTH, "")
    assert answer.hits[0].heading == "Guide > Rooms"
    assert answer.hits[0].bm25 is None
    assert answer.hits[0].similarity is not None
    assert answer.hits[0].similarity > 0.1
    both = (await world.knowledge.search("acme", "rooms")).hits[0]
    assert (both.heading, both.score) == ("Guide > Rooms", 1.0)
    assert both.bm25
    status = await world.knowledge.status("acme")
    assert (status.sources, status.chunks, status.embedded, status.model) == (1, 4, 4, "sim-embed")
    assert status.ranking in (EXACT, SQLITE_VEC)


async def test_a_similarity_below_the_least_is_not_found(world, simulator):
    await embeddings(world, simulator, least_similarity="0.99")
    await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    assert (await world.knowledge.search("acme", "what does it cost?")).hits == ()


async def test_vectors_of_other_companies_are_not_found(world, simulator):
    await embeddings(world, simulator)
    await embeddings(world, simulator, "globex")
    await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    await world.knowledge.ingest_text("globex", "# Other\n\nNothing alike.", title="y", markdown=True)
    answer = await world.knowledge.search("globex", "what does a room cost?")
    assert {hit.title for hit in answer.hits} <= {"Other"}


async def test_the_endpoint_is_down(world, simulator):
    await embeddings(world, simulator)
    await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    await simulator.fault("500:llm")
    answer = await world.knowledge.search("acme", "rooms")
    assert [hit.heading for hit in answer.hits] == ["Guide > Rooms"]
    assert answer.mode is Mode.TEXT
    assert answer.degraded.startswith("found by words only, because embeddings (acme)")
    other = await world.knowledge.ingest_text("acme", "Parking is free", title="y")
    assert other.changed
    assert other.degraded.startswith("it is found by its words only, because embeddings (acme)")
    view = next(view for view in world.policies.views() if view.name == "embeddings (acme)")
    assert view.stats.degraded == 2
    # Later, what is missing is made up for, and the text is not written again.
    await simulator.clear_faults()
    policy = world.policies.find("embeddings (acme)")
    assert policy is not None
    await policy.breaker.reset()
    answer = await world.knowledge.search("acme", "parking")
    assert answer.degraded == "1 of 5 pieces have no vector of sim-embed yet: callboard knowledge refresh"
    again = await world.knowledge.refresh("acme", "y")
    assert (again.changed, again.degraded, again.source.embedding_model) == (False, "", "sim-embed")
    assert (await world.knowledge.search("acme", "parking")).degraded == ""


async def test_a_probe_embeds_nothing_and_counts_against_nobody(tmp_path, simulator, fake_time):
    limiter = RateLimiter(MemoryWindows(fake_time), account=Limits(minute=1, hour=0, day=0, burst=0))
    async with world_on(tmp_path, fake_time, limiter=limiter) as world:
        await embeddings(world, simulator)
        where = await world.integrations.resolve(Kind.KNOWLEDGE, 1, adapter="embeddings")
        for _ in range(3):
            assert "sim-embed" in await world.knowledge.probe(where)
        asked = (await simulator.stats())["partners"]["by_route"]
        assert asked.get("POST /llm/v1/embeddings", 0) == 0
        # One that lists no models is not asked for a word instead: that would be charged for.
        await simulator.fault("404:llm:list")
        with pytest.raises(ServiceError, match="nothing else is free to ask") as caught:
            await world.knowledge.probe(where)
        assert caught.value.code == "untestable"
        assert (await simulator.stats())["partners"]["by_route"].get("POST /llm/v1/embeddings", 0) == 0
        await simulator.fault("500:llm")
        with pytest.raises(ServiceError):
            await world.knowledge.probe(where)
        assert not any(budget.used for budget in await limiter.budgets(Subject(account="acme")))


async def test_a_wrong_key_is_told(world, simulator):
    await world.integrations.add(
        "embeddings",
        company="acme",
        base_url=f"{simulator.partners_url}/llm/v1",
        config={"model": "sim-embed"},
        secret="canary-0123456789",
    )
    done = await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    assert "refused the key" in done.degraded
    assert "canary" not in repr(done)


async def test_another_model_means_other_vectors(world, simulator):
    info = await embeddings(world, simulator)
    await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    before = await stored(world)
    await world.integrations.remove(info.id)
    await embeddings(world, simulator, model="sim-embed-2")
    answer = await world.knowledge.search("acme", "what does it cost?")
    assert answer.hits == ()
    assert "4 of 4 pieces have no vector of sim-embed-2" in answer.degraded
    again = await world.knowledge.refresh("acme", "Guide")
    assert (again.changed, again.source.embedding_model) == (False, "sim-embed-2")
    assert all(one != other for one, other in zip(before, await stored(world), strict=True))
    assert (await world.knowledge.search("acme", "what does it cost?")).hits


async def test_who_is_cancelled_goes_on_where_it_was_left(world, simulator):
    await embeddings(world, simulator, batch="1")
    half = asyncio.Event()

    def watch(progress):
        if (progress.step, progress.done) == ("embedding", 2):
            half.set()

    work = asyncio.create_task(
        world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True, progress=watch)
    )
    await asyncio.wait_for(half.wait(), 20)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    made = [raw for raw in await stored(world) if raw is not None]
    assert 2 <= len(made) < 4
    assert (await world.knowledge.search("acme", "rooms")).hits, "what is stored is found already"
    await simulator.reset_stats()
    await world.knowledge.refresh("acme", "Guide")
    assert None not in await stored(world)
    asked = (await simulator.stats())["partners"]["by_route"]["POST /llm/v1/embeddings"]
    assert asked == 4 - len(made)


async def test_batches_keep_within_our_own_limits(tmp_path, simulator, fake_time):
    limiter = RateLimiter(MemoryWindows(fake_time), account=Limits(minute=2, hour=0, day=0, burst=0))
    seen = []
    async with world_on(tmp_path, fake_time, limiter=limiter, sleep=fake_time.sleep) as world:
        await embeddings(world, simulator, batch="1")
        done = await world.knowledge.ingest_text(
            "acme", GUIDE, title="x", markdown=True, progress=seen.append
        )
    assert done.degraded == ""
    assert [(each.done, each.total) for each in seen if each.step.startswith("waiting")] == [(2, 4)]
    assert max(fake_time.slept) > 50


@pytest.mark.parametrize("fault", ["shape:llm", "html:llm", "truncate:llm"])
async def test_answers_that_are_none(world, simulator, fault):
    await embeddings(world, simulator)
    await simulator.fault(fault)
    done = await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
    assert done.degraded
    assert await stored(world) == [None] * 4


# The three rankings


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_numpy_finds_the_nearest(data):
    size = data.draw(st.integers(1, 8))
    rows = data.draw(st.lists(st.lists(FLOATS, min_size=size, max_size=size), min_size=1, max_size=20))
    usable = [unit(row) for row in rows if any(abs(value) > 1e-3 for value in row)]
    if not usable:
        return
    search = VectorSearch()
    ids = np.arange(1, len(usable) + 1)
    matrix = np.frombuffer(b"".join(map(pack, usable)), "<f4").reshape(len(usable), size)
    parts = data.draw(st.integers(1, len(usable)))
    pieces = [(ids[at : at + parts], matrix[at : at + parts]) for at in range(0, len(usable), parts)]
    search._matrices = lambda *_: iter(pieces)  # type: ignore[method-assign]
    limit = data.draw(st.integers(1, 25))
    found = search._exact(None, 1, "m", usable[0], limit)  # type: ignore[arg-type]
    assert len(found) == min(limit, len(usable))
    expected = sorted((-float(row @ np.asarray(usable[0])), place + 1) for place, row in enumerate(matrix))
    assert [near for _, near in found] == pytest.approx([-near for near, _ in expected[:limit]], abs=1e-6)
    assert [near for _, near in found] == sorted((near for _, near in found), reverse=True)


async def fill(world: World, count: int, size: int, seed: int = 7) -> list[array]:
    """A source with random vectors of the model `m`."""
    await world.knowledge.ingest_text(
        "acme", "\n\n".join(f"# h{n}\n\ntext {n}" for n in range(count)), title="v", markdown=True
    )
    rng = np.random.default_rng(seed)
    made = [unit(row.tolist()) for row in rng.normal(size=(count, size))]

    def write(session):
        session.execute(update(KnowledgeSource).values(embedding_model="m"))
        ids = session.exec(select(KnowledgeChunk.id).order_by(col(KnowledgeChunk.ordinal))).all()
        vectors.put(session, {number: pack(vector) for number, vector in zip(ids, made, strict=True)})

    await world.database.write(write)
    return made


async def test_what_is_too_large_to_keep_is_read_in_pieces(world, monkeypatch):
    made = await fill(world, 30, 6)
    expected = await VectorSearch().nearest(world.database, 1, "m", made[3], 7)
    monkeypatch.setattr(vectors, "_KEPT_BYTES", 100)
    monkeypatch.setattr(vectors, "_AT_ONCE", 4)
    search = VectorSearch()
    search._ranking = EXACT
    found = await search.nearest(world.database, 1, "m", made[3], 7)
    assert [number for number, _ in found] == [number for number, _ in expected]
    assert not search._kept


async def test_the_copy_in_memory_follows_the_table(world):
    search = VectorSearch()
    made = await fill(world, 12, 5)
    found = await search.nearest(world.database, 1, "m", made[3], 3)
    assert found[0][1] == pytest.approx(1, abs=1e-6)
    first = found[0][0]
    await world.database.write(
        lambda session: session.execute(text(f"DELETE FROM knowledge_chunk WHERE id = {first}"))
    )
    again = await search.nearest(world.database, 1, "m", made[3], 3)
    assert first not in [number for number, _ in again]
    assert [number for number, _ in again[:2]] == [number for number, _ in found[1:]]


WITH_SQLITE_VEC = """
import asyncio, json, sys
from pathlib import Path
from services.integrations.knowledge.vectors import VectorSearch, unpack
from services.storage import Database, DatabaseLocation

async def main():
    database = await Database.open(DatabaseLocation(path=Path(sys.argv[1])))
    search = VectorSearch(sys.argv[2])
    vector = unpack(bytes.fromhex(sys.argv[3]))
    found = await search.nearest(database, 1, "m", vector, 10)
    print(json.dumps([await search.ranking(database), found]))
    await database.aclose()

asyncio.run(main())
"""


def python_with_extensions() -> str:
    """An interpreter of this version whose SQLite loads extensions."""
    code = (
        "import sqlite3, sys; sqlite3.connect(':memory:').enable_load_extension; print(sys.version_info[:2])"
    )
    for name in (sys.executable, shutil.which("python3"), "/usr/bin/python3"):
        if name and Path(name).exists():
            done = subprocess.run([name, "-c", code], capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2]):
                return name
    pytest.skip("no Python of this version here has an SQLite that loads extensions")


async def test_sqlite_vec_ranks_as_numpy_does(world):
    python = python_with_extensions()
    made = await fill(world, 60, 24)
    exact = VectorSearch()
    exact._ranking = EXACT
    expected = await exact.nearest(world.database, 1, "m", made[5], 10)
    packages = os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    done = await asyncio.to_thread(
        subprocess.run,
        [
            python,
            "-c",
            WITH_SQLITE_VEC,
            str(world.database.where.path),
            sqlite_vec.loadable_path(),
            pack(made[5]).hex(),
        ],
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranking, found = json.loads(done.stdout)
    assert ranking == SQLITE_VEC
    assert [number for number, _ in found] == [number for number, _ in expected]
    assert [near for _, near in found] == pytest.approx([near for _, near in expected], abs=1e-5)


async def test_postgresql_without_pgvector_ranks_exactly(postgres_url, simulator):
    async with world_on(DatabaseLocation.from_url(postgres_url)) as world:
        made = await fill(world, 20, 8)
        search = VectorSearch()
        if await search.ranking(world.database) == PGVECTOR:
            pytest.skip("this server has pgvector")
        found = await search.nearest(world.database, 1, "m", made[2], 4)
        assert found[0][1] == pytest.approx(1, abs=1e-6)


@pytest.fixture
def pgvector_url() -> Iterator[str]:
    with running_postgres(with_pgvector=True) as server:
        yield server.url


async def test_pgvector_ranks_as_numpy_does(pgvector_url, simulator):
    async with world_on(DatabaseLocation.from_url(pgvector_url)) as world:
        made = await fill(world, 60, 24)
        search, exact = VectorSearch(), VectorSearch()
        exact._ranking = EXACT
        assert await search.ranking(world.database) == PGVECTOR
        for vector in made[:5]:
            expected = await exact.nearest(world.database, 1, "m", vector, 10)
            found = await search.nearest(world.database, 1, "m", vector, 10)
            assert [number for number, _ in found] == [number for number, _ in expected]
            assert [near for _, near in found] == pytest.approx([near for _, near in expected], abs=1e-5)
        # Through the service: another model's vectors take the place of these.
        await embeddings(world, simulator)
        await world.knowledge.ingest_text("acme", GUIDE, title="x", markdown=True)
        answer = await world.knowledge.search("acme", "what does it cost?")
        assert answer.hits[0].heading == "Guide > Rooms"
        assert (await world.knowledge.status("acme")).ranking == PGVECTOR
        await world.knowledge.refresh("acme", "text:v")
        await world.knowledge.remove("acme", "Guide")
        assert (await world.knowledge.search("acme", "euro price")).mode is Mode.BOTH
