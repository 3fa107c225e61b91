"""Pieces: nothing is lost, nothing is out of order, none is too large, no word is cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.integrations.knowledge.chunking import LEAST, MOST, OVERLAP, Chunk, Section, chunks_of

WORDS = st.text(st.sampled_from("abcdefgäößé0123456789.,-–日本語"), min_size=1, max_size=14)
GAPS = st.sampled_from([" ", "  ", "\n", "\n\n", "\t", ". ", "? ", "\n \n"])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=900).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)
ANY_TEXT = st.text(max_size=4000)
SECTIONS = st.lists(st.builds(Section, st.text(max_size=30), TEXTS), max_size=4)


def squeezed(text: str) -> str:
    return "".join(text.split())


def put_together(chunks: list[Chunk], sections: list[Section]) -> list[str]:
    """Every section's text from its pieces alone, overlaps taken once."""
    texts = ["" for _ in sections]
    covered = [0 for _ in sections]
    for chunk in chunks:
        start = max(chunk.start, covered[chunk.section])
        texts[chunk.section] += sections[chunk.section].text[start : chunk.end]
        covered[chunk.section] = max(covered[chunk.section], chunk.end)
    return texts


@settings(max_examples=150, deadline=None)
@given(SECTIONS)
def test_nothing_is_lost_and_the_order_is_kept(sections):
    chunks = chunks_of(sections)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    places = [(chunk.section, chunk.start, chunk.end) for chunk in chunks]
    assert places == sorted(places)
    for chunk in chunks:
        assert chunk.text == sections[chunk.section].text[chunk.start : chunk.end]
        assert chunk.heading == sections[chunk.section].heading
        assert chunk.text == chunk.text.strip()
        assert chunk.text
    assert [squeezed(text) for text in put_together(chunks, sections)] == [
        squeezed(section.text) for section in sections
    ]


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_sizes_are_bounded(text):
    chunks = chunks_of([Section("", text)])
    assert all(len(chunk.text) <= MOST for chunk in chunks)
    for one, following in pairwise(chunks):
        assert following.end > one.end
        assert one.end - following.start <= OVERLAP
    # A piece other than the last is only short where a word of that length would not have fitted.
    assert all(chunk.end - chunk.start > LEAST - OVERLAP - 20 for chunk in chunks[:-1])


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_word_is_cut(text):
    for chunk in chunks_of([Section("", text)]):
        ends_well = chunk.end == len(text) or text[chunk.end].isspace() or text[chunk.end - 1] in "。！？"
        begins_well = chunk.start == 0 or text[chunk.start - 1].isspace() or text[chunk.start - 1] in "。！？"
        assert ends_well
        assert begins_well


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT, st.integers(1, 60), st.integers(1, 80))
def test_any_text_at_any_size(text, least, room):
    most = least + room
    chunks = chunks_of([Section("h", text)], least=least, most=most)
    assert all(0 < len(chunk.text) <= most for chunk in chunks)
    assert squeezed(put_together(chunks, [Section("h", text)])[0]) == squeezed(text)


def test_a_word_longer_than_a_piece_is_cut_and_only_there():
    text = "short " + "x" * (3 * MOST) + " after it"
    chunks = chunks_of([Section("", text)])
    assert chunks[0].text == "short"
    assert {len(chunk.text) for chunk in chunks[1:4]} == {MOST}
    assert chunks[-1].text.endswith("after it")


def test_paragraphs_are_kept_together_where_they_fit():
    paragraphs = [f"{number} " + "word " * 90 for number in range(6)]
    chunks = chunks_of([Section("", "\n\n".join(paragraphs))])
    assert len(chunks) == 3
    assert all(chunk.text.endswith("word") for chunk in chunks)
    assert [chunk.text.count("\n\n") for chunk in chunks] == [
        1,
        2,
        2,
    ]  # the overlap brings a line of the last


def test_a_line_of_ten_megabytes():
    chunks = chunks_of([Section("", "word " * 2_000_000)])
    assert len(chunks) > 8_000
    assert all(len(chunk.text) <= MOST for chunk in chunks)
