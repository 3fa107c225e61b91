"""Documents read: what they say, and what is told of those that say nothing."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from services.errors import ServiceError
from services.integrations.knowledge import extract
from services.integrations.knowledge.extract import HTML, MARKDOWN, PDF, TEXT, media_type, read_document


def pdf(*pages: str, title: str = "", password: str | None = None) -> bytes:
    """A PDF with these texts, one a page, in the standard font."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(width=595, height=842)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        if text:
            stream = DecodedStreamObject()
            escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            stream.set_data(f"BT /F1 12 Tf 72 720 Td ({escaped}) Tj ET".encode("cp1252"))
            page[NameObject("/Contents")] = stream
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def refused(data: bytes, name: str, **options) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        read_document(data, name, **options)
    error = caught.value
    assert error.message[0].isupper() or error.message.startswith(name)
    assert not error.message.endswith(".")
    assert error.advice
    return error


def read_or_code(data: bytes, name: str) -> extract.Document | str:
    """The document, or the code of its error, which has advice whatever it is."""
    try:
        return read_document(data, name)
    except ServiceError as error:
        if not error.advice:
            raise
        return error.code


# Text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("Grüße".encode(), "Grüße"),
        (b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", "Grüße"),
        ("Grüße".encode("utf-16"), "Grüße"),
        ("Grüße".encode("cp1252"), "Grüße"),
        (b"one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\u0308bc".encode(), "äbc"),
    ],
)
def test_text_in_any_usual_encoding(data, says):
    document = read_document(data, "note.txt")
    assert (document.media_type, document.title) == (TEXT, "note.txt")
    assert document.sections[0].text == says


def test_the_server_knows_the_charset():
    document = read_document("Grüße".encode("iso-8859-2"), "note", declared="text/plain; charset=ISO-8859-2")
    assert document.text.strip() == "Grüße"


@pytest.mark.parametrize("charset", ["no-such-thing", "base64", "unicode_escape", "idna", "../../x"])
def test_a_charset_that_is_none_is_not_believed(charset):
    data = "a\\u0041ü".encode()
    assert "a\\u0041ü" in read_document(data, "note", declared=f"text/plain; charset={charset}").text


def test_binary_garbage_called_text():
    error = refused(bytes(range(256)) * 40, "notes.txt")
    assert error.code == "not_text"
    assert "notes.txt is not a text file" in error.message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"\x89PNG\r\n", "picture"),
        (b"{\\rtf1 hello}", "rich text"),
        (b"\x7fELF", "program"),
        (b"SQLite format 3\x00", "database"),
    ],
)
def test_other_kinds_of_file_are_named(data, words):
    error = refused(data, "upload")
    assert error.code == "unsupported_media"
    assert words in error.message


def test_nothing_at_all():
    assert refused(b"", "empty.txt").code == "no_text"
    assert refused(b" \n\t ", "blank.md").code == "no_text"


def test_too_large(monkeypatch):
    monkeypatch.setattr(extract, "MOST_BYTES", 10)
    assert refused(b"x" * 11, "big.txt").code == "too_large"
    monkeypatch.setattr(extract, "MOST_BYTES", 1000)
    monkeypatch.setattr(extract, "MOST_TEXT", 5)
    assert refused(b"x" * 11, "big.txt").code == "too_large"


# Markdown


def test_markdown_headings_are_context():
    text = (
        "---\ntitle: Hausordnung\n---\nVorab.\n\n# Hotel #\nWillkommen\n\n## Zeiten\n8 bis 18\n\n"
        "```sh\n# no heading\n```\n\n### Sonntag\nzu\n\n## Preise\n80 €\n\nAnreise\n=======\nmit der Bahn\n"
    )
    document = read_document(text.encode(), "haus.md")
    assert (document.title, document.media_type) == ("Hausordnung", MARKDOWN)
    found = {section.heading: section.text for section in document.sections}
    assert list(found) == [
        "",
        "Hotel",
        "Hotel > Zeiten",
        "Hotel > Zeiten > Sonntag",
        "Hotel > Preise",
        "Anreise",
    ]
    assert "# no heading" in found["Hotel > Zeiten"]
    assert found["Anreise"] == "mit der Bahn"


def test_the_first_heading_is_the_title():
    assert read_document(b"intro\n\n# House rules\ntext", "x.md").title == "House rules"
    assert read_document(b"just text", "x.md").title == "x.md"


def test_a_rule_and_a_list_are_no_headings():
    document = read_document(b"a paragraph\nof two lines\n---\n- item\n---\nend", "x.md")
    assert [section.heading for section in document.sections] == [""]


@given(st.text(max_size=500))
@settings(max_examples=200, deadline=None)
def test_any_markdown_keeps_its_words(text):
    text = text.replace("\x00", " ")
    document = read_or_code(text.encode("utf-8", "replace"), "x.md")
    if isinstance(document, str):
        assert document in ("no_text", "not_text", "unsupported_media")
    elif document.media_type == MARKDOWN and not text.startswith("---"):
        told = document.text
        missing = [word for word in text.split() if word.isalnum() and word.isascii() and word not in told]
        assert not missing


# HTML

PAGE = """<!DOCTYPE html><html><head><title>Hotel &amp; Bar</title><style>p{}</style></head><body>
<nav><a href=/>Start</a></nav><header><h1>Hotel  Sonne</h1></header>
<script>var secret = "never";</script><p>Caf&eacute; &lt;open&gt;<br>daily</p>
<h2>Prices</h2><table><tr><th>Room</th><th>EUR</th></tr><tr><td>Single</td><td>80</td></tr></table>
<ul><li>Breakfast<li>Parking <b>free</b></ul><p hidden>invisible</p>
<h3>Pets</h3>Dogs are welcome<footer>Imprint</footer></body></html>"""


def test_a_page_without_what_is_around_it():
    document = read_document(PAGE.encode(), "index")
    assert (document.title, document.media_type) == ("Hotel & Bar", HTML)
    found = {section.heading: section.text for section in document.sections}
    assert list(found) == ["Hotel Sonne", "Hotel Sonne > Prices", "Hotel Sonne > Prices > Pets"]
    assert found["Hotel Sonne"] == "Café <open>\ndaily"
    assert "Room | EUR\nSingle | 80" in found["Hotel Sonne > Prices"]
    assert "- Breakfast\n- Parking free" in found["Hotel Sonne > Prices"]
    assert not any(word in document.text for word in ("secret", "Start", "invisible", "Imprint", "p{}"))


def test_the_main_part_is_enough():
    page = b"<html><body><div>advertisement</div><main><p>the text</p></main></body></html>"
    assert read_document(page, "p").sections[0].text == "the text"


def test_a_page_that_is_all_navigation_is_still_read():
    assert "Menu of the day" in read_document(b"<html><nav>Menu of the day</nav></html>", "p").text


def test_the_page_knows_its_charset():
    page = '<html><head><meta charset="iso-8859-15"></head><body>10 €</body></html>'.encode("iso-8859-15")
    assert "10 €" in read_document(page, "p").text


@pytest.mark.parametrize("opening", [b"<div>", b"<b>", b"<ul><li>", b"<table><tr><td>", b"<a><i>"])
def test_nesting_without_end_is_refused_quickly(opening):
    started = time.monotonic()
    error = refused(b"<html><body>" + opening * 200_000 + b"deep", "bomb.html")
    assert error.code == "too_deep"
    assert time.monotonic() - started < 20  # the parser alone would take minutes


def test_more_elements_than_a_page_has():
    assert refused(b"<html>" + b"<p>x" * 600_000, "bomb.html").code == "too_large"


def test_unclosed_tags_and_scripts_do_not_count_as_depth():
    page = "<html><body>" + "<p>para<li>item<br>" * 2000 + "<script>" + "<div>" * 5000 + "</script>end"
    assert read_document(page.encode(), "p").text.count("item") == 2000


@given(st.text(st.sampled_from('<>/!-="& abcdivphul1\n'), max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_tag_soup(text):
    document = read_or_code(b"<html>" + text.encode(), "soup.html")
    assert document == "no_text" or not isinstance(document, str)


# PDF


def test_a_pdf_has_its_pages_as_headings():
    document = read_document(pdf("Opening hours 8 to 18", "Prices from 80 EUR", title="Hotel"), "h.pdf")
    assert (document.title, document.media_type) == ("Hotel", PDF)
    assert [(section.heading, section.text.strip()) for section in document.sections] == [
        ("Page 1", "Opening hours 8 to 18"),
        ("Page 2", "Prices from 80 EUR"),
    ]


def test_a_pdf_with_a_password():
    error = refused(pdf("secret", password="open sesame"), "locked.pdf")
    assert error.code == "encrypted"
    assert error.message == "locked.pdf is protected by a password"


def test_a_pdf_that_only_forbids_printing_is_read():
    assert "plain" in read_document(pdf("plain", password=""), "r.pdf").text


def test_a_scan():
    error = refused(pdf("", ""), "scan.pdf")
    assert error.code == "no_text"
    assert "OCR" in error.advice


@pytest.mark.parametrize("cut", [20, 200, 400])
def test_a_broken_pdf(cut):
    whole = pdf("some text")
    assert refused(whole[:cut], "broken.pdf").code in ("bad_document", "no_text")
    assert refused(b"%PDF-1.7\n" + b"\xff" * 500, "broken.pdf").code == "bad_document"


def test_a_pdf_by_name_only():
    assert refused(b"not at all", "x.pdf").code == "bad_document"


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_to_a_pdf_is_an_error_with_advice(data):
    whole = bytearray(pdf("some text", "more text"))
    for _ in range(data.draw(st.integers(1, 12))):
        whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read_or_code(bytes(whole), "x.pdf")


def test_reading_stops_when_nobody_waits_any_more():
    with pytest.raises(ServiceError) as caught:
        read_document(pdf("a", "b"), "x.pdf", stopped=lambda: True)
    assert caught.value.code == "cancelled"


@pytest.mark.parametrize(
    ("data", "name", "declared", "kind"),
    [
        (b"hello", "x.md", "", MARKDOWN),
        (b"hello", "x", "text/markdown", MARKDOWN),
        (b"hello", "x.html", "text/plain", TEXT),
        (b"<p>hello", "x.html", "", HTML),
        (b"<p>hello", "x", "text/html; charset=utf-8", HTML),
        (b" <!-- c --><!DOCTYPE html>", "x.txt", "text/plain", HTML),
        (b'{"a": 1}', "x.json", "application/json", TEXT),
        (b"%PDF-1.4", "x", "", PDF),
    ],
)
def test_what_a_file_is(data, name, declared, kind):
    assert media_type(data, name, declared) == kind
