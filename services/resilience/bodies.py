"""What a vendor's error answer means: category, code, a sentence and advice. Pure, and needs no HTTP library.

Every vendor has its own shape of body (its dialect) and its own codes (`vendor_codes`). What the tables do
not know is told by the status, with the vendor's own sentence behind it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from services.errors import Category, ServiceError
from services.resilience import vendor_codes as codes
from services.resilience.vendor_codes import Meaning
from services.text import clean_line

_PERMISSION: Final = re.compile(r"permissions?[\s:]+['\"`]?([A-Za-z][\w.:-]*_[\w.:-]*\w)", re.IGNORECASE)
_ABSENT: Final = re.compile(
    r"\bnot found\b|\b(cannot|could not|can't) find\b|\bdoes not exist\b", re.IGNORECASE
)
_NO_CREDIT: Final = re.compile(r"credit balance is too low", re.IGNORECASE)
_HOSTS_OF_AGENTS: Final = frozenset({"retell", "elevenlabs"})
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an error answer means. `text`: the vendor's own sentence, `number`: its own code, if any."""

    category: Category
    code: str
    message: str
    advice: str
    text: str = ""
    number: str = ""
    retry_after: float | None = None

    def error(self) -> ServiceError:
        return ServiceError(
            self.message,
            category=self.category,
            advice=self.advice,
            code=self.code,
            retry_after=self.retry_after,
        )


@dataclass(frozen=True, slots=True)
class Said:
    """What an error body says: the vendor's own sentence (may be empty), its codes, the telling first."""

    text: str = ""
    words: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    """Permissions that it names as missing."""
    passing: bool = False
    """Whether the vendor itself says that it will pass."""


def explain(
    vendor: str,
    status: int,
    data: object,
    headers: Mapping[str, str] = _NO_HEADERS,
    *,
    dialect: str = "",
    now: int = 0,
) -> Verdict:
    """The meaning of an error answer of `vendor` (the name people read).

    `data` is the parsed body, or its text where it is no JSON. `dialect` says whose shapes and codes it has
    (`retell`, `elevenlabs`, `twilio`, `meta`, `hubspot`, `salesforce`, `google`, `openai`, `anthropic`, or
    anything else for a plain JSON service); by default the vendor's own. `status` 0: a report instead of an
    answer, as of a message that was not delivered. `now` in epoch milliseconds, for `retry-after` dates.
    """
    spoken = (dialect or vendor).lower()
    spoken = _ALIASES.get(spoken, spoken)
    read, table = _DIALECTS.get(spoken, (_read_plain, codes.ELEVENLABS))
    said = read(data)
    known = ((word, table[word]) for word in said.words if word in table)
    found = next((pair for pair in known if not _belied(status, pair[1])), None)
    word, meaning = found if found is not None else ("", _by_status(status, said, spoken))
    if spoken == "anthropic" and _NO_CREDIT.search(said.text):
        meaning = codes.QUOTA  # which comes as an invalid request
    elif found is None and said.passing and not _passes(meaning):
        meaning = codes.UNWELL
    return _spelt(vendor, spoken, meaning, said, word, retry_after(headers, now))


def explain_body(data: object) -> Said:
    """The vendor's own words out of an error body of any of the plain shapes."""
    return _read_plain(data)


def _belied(status: int, meaning: Meaning) -> bool:
    """Whether the status counts for more than the code.

    Who answers 5xx says that the failure is its own: it is unwell, however busy it calls itself, and neither
    the key nor the request is to blame because some part of it could not read them. A code that says more
    than a status could (a quota, a number) stands.
    """
    return status >= 500 and (meaning.category is Category.RATE_LIMIT or meaning in _OF_4XX)


def _passes(meaning: Meaning) -> bool:
    return meaning.category in (Category.TRANSIENT, Category.TIMEOUT, Category.RATE_LIMIT)


def _spelt(vendor: str, dialect: str, meaning: Meaning, said: Said, word: str, wait: float | None) -> Verdict:
    because = f": {said.text.rstrip('.')}" if said.text else ""
    number = word if word.isdecimal() else next((each for each in said.words if each.isdecimal()), "")
    wait = meaning.wait if wait is None else wait
    if meaning is codes.MISSING_PERMISSION:
        return _missing_permission(vendor, said, because, number)
    advice = meaning.advice.format(
        vendor=vendor,
        again="rotate this connection's key" if dialect in _HOSTS_OF_AGENTS else "store it anew",
    )
    when = ""
    if meaning.category is Category.RATE_LIMIT:
        when = f", retry in {spell_seconds(wait)}" if wait else ""
        advice = advice or f"Wait {spell_seconds(wait) if wait else 'a minute'} and try again"
    shown = f" ({number})" if number and dialect in _NUMBERED else ""
    message = f"{vendor} {meaning.what}{shown}{when}{because}"
    return Verdict(meaning.category, meaning.code, message, advice, said.text, number, wait)


def _missing_permission(vendor: str, said: Said, because: str, number: str) -> Verdict:
    found = _PERMISSION.search(said.text)
    names = said.scopes or ((found[1],) if found else ())
    what = f" the permission{'s' * (len(names) > 1)} {', '.join(names)}" if names else " a permission"
    return Verdict(
        Category.AUTHENTICATION,
        "missing_permission",
        f"The key lacks{what} at {vendor}{because}",
        f"Give the key{what} at {vendor}, or use another key",
        said.text,
        number,
    )


# By status


def _by_status(status: int, said: Said, dialect: str) -> Meaning:
    """The meaning of an answer whose codes say nothing."""
    if status in (400, 422) and _ABSENT.search(said.text):
        # Retell answers 422 as well as 404 for an asset it does not find (its spec documents both).
        status = 404
    known = _STATUSES.get(status)
    if known is codes.INVALID and dialect in _HOSTS_OF_AGENTS:
        advice = "Check that the base URL is this vendor's API and that the program is up to date"
        return replace(codes.INVALID, advice=advice)
    if known is not None:
        return known
    phrase = f"answered {status} {reason_phrase(status)}".rstrip() if status else "reports a failure"
    if status == 408 or status >= 500:
        category = Category.TIMEOUT if status in (408, 504) else Category.TRANSIENT
        return Meaning(category, "server_error", phrase, codes.UNWELL.advice)
    if status == 413:
        return codes.TOO_BIG
    category = Category.TRANSIENT if status in (409, 425) else Category.PERMANENT
    advice = "Check that the base URL is this vendor's API" if status else "Look it up at {vendor}"
    return Meaning(category, "refused", phrase, advice)


_STATUSES: Final[Mapping[int, Meaning]] = MappingProxyType(
    {
        400: codes.INVALID,
        401: codes.WRONG_KEY,
        402: codes.PAYMENT,
        403: codes.MISSING_PERMISSION,
        404: codes.NOT_FOUND,
        410: codes.NOT_FOUND,
        422: codes.INVALID,
        429: replace(codes.TOO_MANY, what="answered 429 too many requests"),
    }
)


_OF_4XX: Final = frozenset(
    {
        codes.INVALID,
        codes.WRONG_KEY,
        codes.PAYMENT,
        codes.MISSING_PERMISSION,
        codes.NOT_FOUND,
        codes.CONFLICT,
        codes.TOO_BIG,
    }
)
"""What says no more than a status of the asker's fault would."""


def reason_phrase(status: int) -> str:
    """What HTTP calls a status, in small letters; empty for an unknown one."""
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return ""


# Reading bodies


def _read_plain(data: object) -> Said:
    """Retell `{status, message}` (also `error_message`, `error`), ElevenLabs and FastAPI `{detail}` as
    object, list or text, problem details `{type, title, detail}`, and their like."""
    if not isinstance(data, dict):
        return Said(shorten(data) if isinstance(data, str) else "")
    detail = data.get("detail", data)
    if isinstance(detail, str):
        return Said(shorten(detail), _texts(data, "code", "type"))
    if isinstance(detail, list):
        return Said("; ".join(filter(None, map(_invalid_field, detail[:3]))))
    if not isinstance(detail, dict):
        return Said()
    text = _first_text(detail, "error_message", "message", "error_description", "error", "title")
    if isinstance(detail.get("error"), dict) and not text:
        return _read_plain(detail["error"])
    return Said(shorten(text), _texts(detail, "status", "code", "type"))


def _read_twilio(data: object) -> Said:
    """`{code, message, more_info, status}`; a message's report has `error_code` and `error_message`."""
    members = _object(data)
    text = _first_text(members, "message", "error_message", "detail")
    return Said(shorten(text), _words(members.get("code"), members.get("error_code")))


def _read_meta(data: object) -> Said:
    """`{error: {message, type, code, error_subcode?, is_transient?, error_data?: {details},
    error_user_msg?}}`; a status's report is the inner object, with `title`."""
    members = _object(data)
    error = _object(members.get("error")) or members
    text = _first_text(_object(error.get("error_data")), "details") or _first_text(
        error, "error_user_msg", "message", "title"
    )
    code = error.get("code")
    words = _words(code)
    if isinstance(code, int) and 200 <= code <= 299:
        words += ("permission",)
    return Said(shorten(text), words, passing=error.get("is_transient") is True)


def _read_hubspot(data: object) -> Said:
    """`{status, message, category, subCategory?, policyName?, errors?: [{message, code, context}],
    context?: {missingScopes}}`; of OAuth `{error, error_description}`."""
    members = _object(data)
    parts = [members, *_objects(members.get("errors"))]
    text = _first_text(members, "message", "error_description")
    said = [_first_text(part, "message") for part in parts[1:3]]
    text = "; ".join(dict.fromkeys(filter(None, (text, *said))))
    scopes: list[str] = []
    for part in parts:
        named = _object(part.get("context")).get("missingScopes") or _object(part.get("context")).get(
            "requiredGranularScopes"
        )
        scopes += (
            [shorten(each) for each in named if isinstance(each, str)] if isinstance(named, list) else []
        )
    words = _words(
        members.get("policyName"), members.get("category"), *(part.get("code") for part in parts[1:])
    )
    return Said(shorten(text), words, tuple(dict.fromkeys(scopes[:5])))


def _read_salesforce(data: object) -> Said:
    """`[{message, errorCode, fields?}]`; of OAuth `{error, error_description}`."""
    parts = _objects(data) or _objects([data])
    text = "; ".join(filter(None, (_first_text(part, "message", "error_description") for part in parts[:3])))
    return Said(shorten(text), _words(*(part.get("errorCode", part.get("error")) for part in parts)))


def _read_google(data: object) -> Said:
    """`{error: {code, message, status, errors: [{domain, reason, message}], details: [{reason}]}}`; of
    OAuth `{error, error_description}`."""
    members = _object(data)
    error = _object(members.get("error"))
    if not error:
        return Said(shorten(_first_text(members, "error_description")), _words(members.get("error")))
    reasons = [part.get("reason") for name in ("errors", "details") for part in _objects(error.get(name))]
    return Said(shorten(_first_text(error, "message")), _words(*reasons, error.get("status")))


def _read_model_server(data: object) -> Said:
    """OpenAI and its like `{error: {message, type, param, code}}`, Anthropic `{type, error: {type,
    message}}`; servers of one's own also answer the inner object alone, or `{error: TEXT}`."""
    members = _object(data)
    error = _object(members.get("error")) or members
    text = _first_text(error, "message", "error", "detail") or (data if isinstance(data, str) else "")
    return Said(shorten(text), _words(error.get("code"), error.get("type")))


_Reader = Callable[[object], Said]
_DIALECTS: Final[Mapping[str, tuple[_Reader, Mapping[str, Meaning]]]] = MappingProxyType(
    {
        "retell": (_read_plain, codes.ELEVENLABS),
        "elevenlabs": (_read_plain, codes.ELEVENLABS),
        "twilio": (_read_twilio, codes.TWILIO),
        "meta": (_read_meta, codes.META),
        "hubspot": (_read_hubspot, codes.HUBSPOT),
        "salesforce": (_read_salesforce, codes.SALESFORCE),
        "google": (_read_google, codes.GOOGLE),
        "openai": (_read_model_server, codes.OPENAI),
        "anthropic": (_read_model_server, codes.ANTHROPIC),
    }
)
DIALECTS: Final = tuple(_DIALECTS)
_ALIASES: Final[Mapping[str, str]] = MappingProxyType({"whatsapp": "meta"})
_NUMBERED: Final = frozenset({"twilio", "meta"})
"""Vendors whose codes are numbers that an operator looks up."""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _first_text(members: Mapping[str, Any], *names: str) -> str:
    return next((members[name] for name in names if isinstance(members.get(name), str)), "")


def _texts(members: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    return tuple(word for word in (members.get(name) for name in names) if isinstance(word, str))


def _words(*values: object) -> tuple[str, ...]:
    """Codes as words: texts and whole numbers, what is neither left out."""
    return tuple(
        str(value)[:80]
        for value in values
        if isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    )


def _invalid_field(item: object) -> str:
    if not isinstance(item, dict):
        return ""
    where = item.get("loc")
    path = ".".join(str(part) for part in where) if isinstance(where, list) else ""
    return shorten(": ".join(filter(None, (path, str(item.get("msg", ""))))))


def shorten(text: str) -> str:
    """A vendor's text as one clean line of at most 240 characters."""
    line = clean_line(text[:2000])
    return line if len(line) <= 240 else line[:239] + "…"


# When to come again


def spell_seconds(seconds: float) -> str:
    """Seconds for people: `40 s`, `5 min`, `2 h`."""
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """The seconds to wait by `retry-after-ms`, else by `retry-after` (seconds or an HTTP date)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        if re.fullmatch(r"\d{1,15}(\.\d{0,15})?", value):
            return float(value) * unit
        if name == "retry-after":
            try:
                at = parsedate_to_datetime(value)
                # HTTP dates are UTC, also where the zone is written as "-0000" or left out.
                at = at if at.tzinfo else at.replace(tzinfo=dt.UTC)
                return max(0.0, at.timestamp() - now / 1000)
            except (ValueError, TypeError, OverflowError):
                return None
    return None
