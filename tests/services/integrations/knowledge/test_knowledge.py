"""The knowledge base on both databases: documents in, answers out, companies apart."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import func, select, text

from services.errors import ServiceError, UsageError
from services.events import KnowledgeChanged
from services.integrations.knowledge import Mode, SourceKind
from services.integrations.knowledge.store import fts_query
from services.integrations.knowledge.words import search_words
from services.storage import DatabaseLocation
from services.storage.tables import Audit, KnowledgeChunk, KnowledgeSource
from tests.services.integrations.knowledge.world import World, world_on
from tests.support.rawserver import raw_server, reply

HOTEL = """# Hotel Sonne

## Öffnungszeiten
Die Rezeption ist von Montag bis Freitag von 8 bis 18 Uhr besetzt.

## Preise
Ein Einzelzimmer kostet 80 Euro, Frühstück inbegriffen.

## Haustiere
Hunde sind willkommen und kosten 15 Euro je Nacht.
"""
BAR = "# Bar\n\nThe bar opens at 20:00. Cocktails cost 12 euro. Reservations by telephone."


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request, tmp_path):
    where = tmp_path
    if request.param == "postgresql":
        where = DatabaseLocation.from_url(request.getfixturevalue("postgres_url"))
    async with world_on(where) as world:
        yield world


async def headings(world: World, question: str, company: str = "acme") -> list[str]:
    return [hit.heading for hit in (await world.knowledge.search(company, question)).hits]


async def test_documents_in_and_answers_out(world):
    heard = []
    world.bus.subscribe(KnowledgeChanged, heard.append)
    done = await world.knowledge.ingest_text("ACME", HOTEL, title="Hotel", markdown=True, actor="ann")
    assert done.changed
    assert (done.source.title, done.source.kind, done.source.chunks) == ("Hotel Sonne", SourceKind.TEXT, 3)
    await world.knowledge.ingest_text("acme", BAR, title="Bar", markdown=True)
    assert len(heard) == 2
    assert (
        await headings(world, "Was kosten Hunde?")
        == [
            "Hotel Sonne > Haustiere",
        ]
        or (await headings(world, "Was kosten Hunde?"))[0] == "Hotel Sonne > Haustiere"
    )
    answer = await world.knowledge.search("acme", "when does the bar open")
    best = answer.hits[0]
    assert (answer.mode, answer.origin, answer.degraded) == (Mode.TEXT, "local", "")
    assert (best.title, best.uri, best.ordinal, best.score) == ("Bar", "text:Bar", 0, 1.0)
    assert best.bm25 is not None
    assert best.bm25 > 0
    assert best.similarity is None
    assert "opens at 20:00" in best.text


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("öffnungszeiten", "Öffnungszeiten"),
        ("OFFNUNGSZEITEN", "Öffnungszeiten"),
        ("Wann ist die Rezeption besetzt?", "Öffnungszeiten"),
        ("fruhstuck", "Preise"),
        ("Einzelzim", "Preise"),
        ("80", "Preise"),
        ("Sonne Haustiere", "Haustiere"),
    ],
)
async def test_case_accents_and_beginnings_do_not_count(world, question, heading):
    await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    assert (await headings(world, question))[0] == f"Hotel Sonne > {heading}"


async def test_a_word_in_a_heading_counts_more(world):
    text = "# A\n\n## Parking\nIn the yard.\n\n## Rooms\nEach of them has parking in front of the house."
    await world.knowledge.ingest_text("acme", text, title="x", markdown=True)
    assert await headings(world, "parking") == ["A > Parking", "A > Rooms"]


async def test_only_the_last_word_is_a_beginning(world):
    await world.knowledge.ingest_text("acme", "cancellation", title="x")
    assert await headings(world, "cancel")
    assert not await headings(world, "cancel booking")


async def test_companies_are_apart(world):
    await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    await world.knowledge.ingest_text("globex", BAR, title="Hotel", markdown=True)
    assert await headings(world, "Hunde", "globex") == []
    assert await headings(world, "cocktails", "acme") == []
    assert [source.title for source in await world.knowledge.sources("globex")] == ["Bar"]
    [mine] = await world.knowledge.sources("acme")
    for wanted in (mine.id, mine.title):
        with pytest.raises(UsageError) as caught:
            await world.knowledge.remove("globex", wanted)
        assert caught.value.code == "unknown_source"
    with pytest.raises(UsageError) as caught:
        await world.knowledge.search("initech", "anything")
    assert caught.value.code == "unknown_company"


async def test_the_same_text_again_writes_nothing(world):
    first = await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)

    def state(session):
        chunks = session.exec(select(KnowledgeChunk.id).order_by(KnowledgeChunk.id)).all()
        return chunks, session.exec(select(func.count(Audit.id))).one()

    before = await world.database.read(state)
    heard = []
    world.bus.subscribe(KnowledgeChanged, heard.append)
    again = await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    assert not again.changed
    assert again.source == first.source
    assert await world.database.read(state) == before
    assert heard == []


async def test_a_changed_text_replaces_what_was_there(world):
    await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    changed = await world.knowledge.ingest_text(
        "acme", "# Hotel Sonne\n\nClosed for good.", title="Hotel", markdown=True
    )
    assert changed.changed
    assert changed.source.chunks == 1
    assert await headings(world, "Haustiere") == []
    assert await headings(world, "closed") == ["Hotel Sonne"]
    assert len(await world.knowledge.sources("acme")) == 1


async def test_removing(world):
    done = await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    gone = await world.knowledge.remove("acme", "hotel sonne", actor="ann")
    assert gone == done.source
    assert await world.knowledge.sources("acme") == []
    assert await headings(world, "Haustiere") == []

    def left(session):
        audit = session.exec(select(Audit.action, Audit.actor).order_by(Audit.id)).all()
        return session.exec(select(func.count(KnowledgeChunk.id))).one(), list(audit)

    assert await world.database.read(left) == (0, [("knowledge.add", ""), ("knowledge.remove", "ann")])


async def test_a_company_takes_its_knowledge_with_it(world):
    await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    await world.database.write(
        lambda session: session.execute(text("DELETE FROM company WHERE name = 'acme'"))
    )
    count = await world.database.read(
        lambda session: session.exec(select(func.count(KnowledgeSource.id))).one()
    )
    assert count == 0
    if world.database.where.is_sqlite:
        check = "INSERT INTO knowledge_fts (knowledge_fts) VALUES ('integrity-check')"
        await world.database.write(lambda session: session.execute(text(check)))


async def test_the_index_follows_every_change(world):
    if not world.database.where.is_sqlite:
        pytest.skip("PostgreSQL keeps its index itself")
    for text_ in (HOTEL, BAR, HOTEL):
        await world.knowledge.ingest_text("acme", text_, title="x", markdown=True)
    change = "UPDATE knowledge_chunk SET text = 'zebra' WHERE ordinal = 0"
    await world.database.write(lambda session: session.execute(text(change)))
    check = "INSERT INTO knowledge_fts (knowledge_fts, rank) VALUES ('integrity-check', 1)"
    await world.database.write(lambda session: session.execute(text(check)))
    assert len(await headings(world, "zebra")) == 1


async def test_the_index_of_postgresql_is_used(world):
    if world.database.where.is_sqlite:
        pytest.skip("of PostgreSQL")

    def plan(session):
        session.execute(text("SET LOCAL enable_seqscan = off"))
        sql = "EXPLAIN SELECT id FROM knowledge_chunk WHERE words @@ to_tsquery('simple', 'hund:*')"
        return "\n".join(row[0] for row in session.execute(text(sql)))

    assert "ix_knowledge_chunk_words" in await world.database.read(plan)


NASTY = (
    '"', '""" OR 1', "a OR b AND NOT c", "NEAR(a b, 5)", "heading:x", "{heading text}: x", "^start", "x*",
    "*", "-a +b", "' OR 1=1 --", "a' & 'b", "a & | ! <-> b", ":*", "\\", "a\\'b", ":w0 :query %(x)s", "\x00",
    "a\x00b", "\ud800", "x\udfff y", "\u202e", "🦊 🦊", "日本語の質問", "हिन्दी", "ﬁ", "İ", "ß", "a" * 10_000,
    "w " * 5_000, "\t\n", "", "e\u0301", "%", "_", "$1",
)  # fmt: skip


async def test_no_question_is_a_query(world):
    await world.knowledge.ingest_text("acme", HOTEL, title="Hotel", markdown=True)
    for question in NASTY:
        assert len((await world.knowledge.search("acme", question)).hits) <= 8


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(st.characters(codec=None, exclude_categories=()), max_size=80))
async def test_any_question_is_answered(world, question):
    answer = await world.knowledge.search("acme", question)
    assert answer.hits == ()


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=80))
def test_every_word_is_quoted(question):
    words = search_words(question)
    if not words:
        return
    query = fts_query(words).removesuffix(" *")
    # Outside of the quotes there is nothing but our own OR.
    outside = "".join(part for index, part in enumerate(query.replace('""', "").split('"')) if index % 2 == 0)
    assert set(outside.split()) <= {"OR"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text(st.characters(codec=None, exclude_categories=()), max_size=400))
async def test_any_text_is_taken_in_or_told_why(world, content):
    try:
        done = await world.knowledge.ingest_text("acme", content, title="any")
    except ServiceError as error:
        if error.code not in ("no_text", "not_text", "unsupported_media", "bad_document", "too_deep"):
            raise
    else:
        assert done.source.chunks


# Where documents come from


async def test_a_file_and_its_changes(world, tmp_path):
    file = tmp_path / "häuser & höfe.md"
    file.write_text("# Haus\n\nAm Markt.")
    done = await world.knowledge.ingest_file("acme", file)
    assert (done.source.kind, done.source.uri) == (SourceKind.FILE, file.as_uri())
    same = await world.knowledge.refresh("acme", done.source.id)
    assert not same.changed
    file.write_text("# Haus\n\nAm Hafen.")
    assert (await world.knowledge.refresh("acme", "Haus", actor="ann")).changed
    assert "Hafen" in (await world.knowledge.search("acme", "Haus")).hits[0].text
    file.unlink()
    with pytest.raises(UsageError) as caught:
        await world.knowledge.refresh("acme", done.source.uri)
    assert "There is no file" in caught.value.message
    assert await headings(world, "Hafen"), "what was read stays"


async def test_a_file_of_bytes_that_are_no_name(world, tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_text("coffee")
    done = await world.knowledge.ingest_file("acme", file)
    assert "%E9" in done.source.uri
    assert not (await world.knowledge.refresh("acme", done.source.id)).changed


async def test_what_is_no_file(world, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / "x", "no file"),
    ):
        with pytest.raises(UsageError) as caught:
            await world.knowledge.ingest_file("acme", path)
        assert words in caught.value.message


async def test_bytes_with_a_name(world):
    done = await world.knowledge.ingest_file("acme", ("page.html", b"<html><h1>Hi</h1>there"))
    assert (done.source.uri, done.source.media_type) == ("upload:page.html", "text/html")
    assert not (await world.knowledge.refresh("acme", done.source.id)).changed


async def test_a_page_and_its_changes(world):
    pages = ["<html><title>Shop</title><p>Open daily.</html>", "<html><title>Shop</title><p>Closed.</html>"]
    async with raw_server(lambda seen: reply(body=pages[0], content_type="text/html")) as server:
        url = f"{server.url}/shop"
        with pytest.raises(ServiceError) as caught:
            await world.knowledge.ingest_url("acme", url)
        assert caught.value.code == "private_address"
        done = await world.knowledge.ingest_url("acme", url, allow_private=True)
        assert (done.source.title, done.source.uri) == ("Shop", url)
        assert not (await world.knowledge.refresh("acme", "Shop", allow_private=True)).changed
        pages.pop(0)
        assert (await world.knowledge.refresh("acme", "Shop", allow_private=True)).changed
    assert await headings(world, "closed") == ["Shop"]


async def test_a_text_without_a_title(world):
    with pytest.raises(UsageError):
        await world.knowledge.ingest_text("acme", "x", title=" \x1b ")


async def test_a_large_document_does_not_hold_the_loop(world):
    """Megabytes in one line; meanwhile the loop goes on."""
    words = 2_000_000 if world.database.where.is_sqlite else 200_000
    beats = 0

    async def beat():
        nonlocal beats
        while True:
            await asyncio.sleep(0.002)
            beats += 1

    task = asyncio.create_task(beat())
    done = await world.knowledge.ingest_text("acme", "wörd " * words, title="long")
    task.cancel()
    assert done.source.chunks > words // 240
    assert beats > 20
