"""Every vendor's error bodies: category, code, words and advice. Shapes as in the vendors' specs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import Category
from services.resilience import rule_of, trips
from services.resilience.bodies import DIALECTS, explain, explain_body
from services.resilience.vendor_codes import (
    ANTHROPIC,
    ELEVENLABS,
    GOOGLE,
    HUBSPOT,
    META,
    OPENAI,
    SALESFORCE,
    TWILIO,
)

TRANSIENT, PERMANENT = Category.TRANSIENT, Category.PERMANENT
RATE, TIMEOUT, AUTH = Category.RATE_LIMIT, Category.TIMEOUT, Category.AUTHENTICATION
Case = tuple[int, Any, str, Category, str]


def check(vendor: str, case: Case, dialect: str = "") -> None:
    status, body, code, category, said = case
    verdict = explain(vendor, status, body, dialect=dialect)
    assert (verdict.code, verdict.category) == (code, category)
    assert said in verdict.message
    assert vendor in verdict.message
    assert verdict.advice
    error = verdict.error()
    assert (error.code, error.category, error.message) == (code, category, verdict.message)
    assert not error.message.endswith(".")
    assert error.message[0].isupper()
    assert "{" not in error.message + error.advice


def retell(message: str) -> dict[str, str]:
    return {"status": "error", "message": message}


RETELL: list[Case] = [
    (400, retell("Invalid request format."), "invalid_request", PERMANENT, "Invalid request format"),
    (401, retell("API key is missing or invalid."), "wrong_key", AUTH, "refused the key"),
    (402, retell("Trial has ended."), "payment_required", PERMANENT, "Trial has ended"),
    (403, {"error": "Forbidden"}, "missing_permission", AUTH, "lacks a permission"),
    (404, retell("No such agent"), "not_found", PERMANENT, "does not know"),
    (422, retell("Cannot find requested asset under given api key."), "not_found", PERMANENT, "asset"),
    (422, retell("begin_message is too long"), "invalid_request", PERMANENT, "begin_message"),
    (429, retell("Account rate limited, please throttle."), "rate_limited", RATE, "429 too many requests"),
    (500, retell("An unexpected server error occurred."), "server_error", TRANSIENT, "500 internal server"),
    (401, {"error_message": "Key gone", "message": "other"}, "wrong_key", AUTH, "Key gone"),
    (504, None, "server_error", TIMEOUT, "504 gateway timeout"),
    (408, None, "server_error", TIMEOUT, "408 request timeout"),
    (409, retell("busy"), "refused", TRANSIENT, "409 conflict: busy"),
    (599, {"message": {"deep": 1}}, "server_error", TRANSIENT, "answered 599"),
    (418, ["?"], "refused", PERMANENT, "418"),
    (413, retell("no"), "request_too_large", PERMANENT, "too large"),
]


@pytest.mark.parametrize("case", RETELL)
def test_retell(case: Case) -> None:
    check("Retell", case)


def eleven(status: str, message: str = "words of theirs") -> dict[str, Any]:
    return {"detail": {"status": status, "message": message}}


ELEVEN: list[Case] = [
    (401, eleven("invalid_api_key"), "wrong_key", AUTH, "refused the key: words of theirs"),
    (401, eleven("quota_exceeded", "0 credits left"), "quota_exceeded", PERMANENT, "0 credits left"),
    (
        401,
        eleven("missing_permissions", "The API key you used is missing the permission convai_read"),
        "missing_permission",
        AUTH,
        "lacks the permission convai_read at",
    ),
    (429, eleven("too_many_concurrent_requests"), "rate_limited", RATE, "too many requests at once"),
    (429, eleven("system_busy"), "rate_limited", RATE, "busy"),
    (404, eleven("voice_not_found"), "not_found", PERMANENT, "does not know"),
    (400, eleven("max_character_limit_exceeded"), "too_long", PERMANENT, "too long"),
    (
        422,
        {"detail": [{"loc": ["query", "cursor"], "msg": "bad", "type": "x"}]},
        "invalid_request",
        PERMANENT,
        "query.cursor: bad",
    ),
    (404, {"detail": "Not Found"}, "not_found", PERMANENT, "Not Found"),
    (500, {"detail": [17, {"loc": None}]}, "server_error", TRANSIENT, "500"),
]


@pytest.mark.parametrize("case", ELEVEN)
def test_elevenlabs(case: Case) -> None:
    check("ElevenLabs", case)


def twilio(code: int, status: int, message: str = "Their words.") -> dict[str, Any]:
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}


TWILIO_CASES: list[Case] = [
    (401, twilio(20003, 401, "Authenticate"), "wrong_key", AUTH, "refused the key (20003): Authenticate"),
    (404, twilio(20404, 404), "not_found", PERMANENT, "(20404)"),
    (429, twilio(20429, 429), "rate_limited", RATE, "too many requests (20429)"),
    (500, twilio(20500, 500), "server_error", TRANSIENT, "(20500)"),
    (400, twilio(21211, 400), "invalid_number", PERMANENT, "(21211): Their words"),
    (400, twilio(21214, 400), "invalid_number", PERMANENT, "(21214)"),
    (400, twilio(21408, 400), "not_allowed", PERMANENT, "that country (21408)"),
    (400, twilio(21610, 400), "opted_out", PERMANENT, "wants no messages"),
    (400, twilio(21612, 400), "undeliverable", PERMANENT, "cannot deliver"),
    (400, twilio(21614, 400), "invalid_number", PERMANENT, "no mobile number"),
    (400, twilio(21617, 400), "too_long", PERMANENT, "too long"),
    (400, twilio(21220, 400, "Call is not in-progress."), "invalid_request", PERMANENT, "(21220)"),
    (400, twilio(63016, 400), "window_closed", PERMANENT, "24 hours"),
    (429, twilio(63018, 429), "rate_limited", RATE, "(63018)"),
    (403, twilio(70051, 403), "missing_permission", AUTH, "lacks a permission"),
    (400, twilio(99999, 400), "invalid_request", PERMANENT, "did not accept the request (99999)"),
    (503, twilio(99999, 503), "server_error", TRANSIENT, "503"),
]


@pytest.mark.parametrize("case", TWILIO_CASES)
def test_twilio(case: Case) -> None:
    check("Twilio", case)


@pytest.mark.parametrize(
    ("code", "category", "said"),
    [
        (30001, RATE, "queue is full"),
        (30002, PERMANENT, "suspended"),
        (30003, TRANSIENT, "could not reach"),
        (30004, PERMANENT, "blocks"),
        (30005, PERMANENT, "does not exist any more"),
        (30006, PERMANENT, "landline"),
        (30007, PERMANENT, "filter"),
        (30008, PERMANENT, "no reason"),
        (12345, PERMANENT, "reports a failure (12345)"),
    ],
)
def test_twilio_reports_of_messages(code: int, category: Category, said: str) -> None:
    verdict = explain("Twilio", 0, {"error_code": code, "error_message": None})
    assert verdict.category is category
    assert said in verdict.message
    assert verdict.number == str(code)
    # Callbacks carry it as text.
    assert explain("Twilio", 0, {"error_code": str(code)}).message == verdict.message


def meta(code: int, message: str = "Their words", **more: Any) -> dict[str, Any]:
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "AXsgn", **more}
    return {"error": error}


META_CASES: list[Case] = [
    (401, meta(190, "Session has expired", error_subcode=463), "wrong_key", AUTH, "(190): Session has exp"),
    (401, meta(104), "wrong_key", AUTH, "refused the key (104)"),
    (403, meta(200, error_subcode=1349174), "missing_permission", AUTH, "lacks a permission at"),
    (403, meta(10), "missing_permission", AUTH, "lacks a permission"),
    (400, meta(299), "missing_permission", AUTH, "lacks a permission"),
    (429, meta(4, is_transient=True), "rate_limited", RATE, "(4)"),
    (400, meta(80007), "rate_limited", RATE, "(80007)"),
    (429, meta(613), "rate_limited", RATE, "(613)"),
    (429, meta(130429), "rate_limited", RATE, "a second"),
    (400, meta(131026), "undeliverable", PERMANENT, "(131026)"),
    (400, meta(131047, "Re-engagement message"), "window_closed", PERMANENT, "24 hours"),
    (400, meta(131048), "spam_limited", RATE, "blocked or reported"),
    (400, meta(130497), "not_allowed", PERMANENT, "users of that country"),
    (400, meta(131049), "held_back", PERMANENT, "fewer marketing messages"),
    (400, meta(131050), "opted_out", PERMANENT, "no marketing messages"),
    (400, meta(131056), "pair_limited", RATE, "retry in 60 s"),
    (400, meta(131051), "unsupported", PERMANENT, "type of message"),
    (
        400,
        meta(132000, error_data={"messaging_product": "whatsapp", "details": "expected 2, got 1"}),
        "template_mismatch",
        PERMANENT,
        "expected 2, got 1",
    ),
    (404, meta(132001), "template_missing", PERMANENT, "no such template"),
    (400, meta(132015), "template_paused", PERMANENT, "paused"),
    (400, meta(132016), "template_paused", PERMANENT, "disabled"),
    (400, meta(133010), "invalid_sender", PERMANENT, "registered"),
    (403, meta(368), "blocked", PERMANENT, "breach of its rules"),
    (404, meta(803), "not_found", PERMANENT, "does not know"),
    (400, meta(100, "Invalid parameter"), "invalid_request", PERMANENT, "Invalid parameter"),
    (400, meta(987654, is_transient=True), "server_error", TRANSIENT, "(987654)"),
    (400, meta(987654), "invalid_request", PERMANENT, "(987654)"),
    (500, meta(1, "An unknown error occurred"), "server_error", TRANSIENT, "unknown error"),
    (500, {"error": "?"}, "server_error", TRANSIENT, "500"),
]


@pytest.mark.parametrize("case", META_CASES)
def test_whatsapp(case: Case) -> None:
    check("WhatsApp", case)


def test_the_report_of_a_whatsapp_message() -> None:
    report = {
        "code": 131026,
        "title": "Message undeliverable",
        "message": "Message undeliverable",
        "error_data": {"details": "Receiver is incapable of receiving this message"},
    }
    verdict = explain("WhatsApp", 0, report)
    assert (verdict.code, verdict.number) == ("undeliverable", "131026")
    assert "incapable" in verdict.text


def hubspot(category: str, message: str = "Their words", **more: Any) -> dict[str, Any]:
    id_ = "aeb5f871-7f07-4993-9211-075dc63e7cbf"
    return {"status": "error", "message": message, "correlationId": id_, "category": category, **more}


HUBSPOT_CASES: list[Case] = [
    (400, hubspot("VALIDATION_ERROR", "Property x"), "invalid_request", PERMANENT, "Property x"),
    (
        400,
        hubspot(
            "VALIDATION_ERROR",
            "Property values were not valid",
            errors=[{"message": "mail is no e-mail address", "code": "INVALID_EMAIL", "in": "email"}],
        ),
        "invalid_request",
        PERMANENT,
        "not valid; mail is no e-mail address",
    ),
    (401, hubspot("INVALID_AUTHENTICATION"), "wrong_key", AUTH, "refused the key"),
    (401, hubspot("EXPIRED_AUTHENTICATION"), "wrong_key", AUTH, "refused the key"),
    (
        403,
        hubspot(
            "MISSING_SCOPES",
            "This app hasn't been granted all required scopes",
            errors=[{"message": "One or more", "context": {"missingScopes": ["crm.objects.deals.write"]}}],
        ),
        "missing_permission",
        AUTH,
        "lacks the permission crm.objects.deals.write at HubSpot",
    ),
    (404, hubspot("OBJECT_NOT_FOUND"), "not_found", PERMANENT, "does not know"),
    (409, hubspot("CONFLICT", "Contact already exists. Existing ID: 7"), "conflict", PERMANENT, "ID: 7"),
    (429, hubspot("RATE_LIMITS", policyName="SECONDLY"), "rate_limited", RATE, "retry in 1 s"),
    (429, hubspot("RATE_LIMITS", policyName="TEN_SECONDLY_ROLLING"), "rate_limited", RATE, "in 10 s"),
    (429, hubspot("RATE_LIMITS", policyName="DAILY"), "daily_limit", RATE, "this day's requests"),
    (429, hubspot("RATE_LIMITS"), "rate_limited", RATE, "too many requests"),
    (502, None, "server_error", TRANSIENT, "502"),
    (400, {"error": "invalid_grant", "error_description": "gone"}, "invalid_request", PERMANENT, "gone"),
]


@pytest.mark.parametrize("case", HUBSPOT_CASES)
def test_hubspot(case: Case) -> None:
    check("HubSpot", case)


SALESFORCE_CASES: list[Case] = [
    (401, [{"message": "Session expired", "errorCode": "INVALID_SESSION_ID"}], "wrong_key", AUTH, "Session"),
    (403, [{"message": "x", "errorCode": "REQUEST_LIMIT_EXCEEDED"}], "daily_limit", RATE, "24 hours"),
    (403, [{"message": "x", "errorCode": "INSUFFICIENT_ACCESS"}], "missing_permission", AUTH, "lacks"),
    (404, [{"message": "x", "errorCode": "NOT_FOUND"}], "not_found", PERMANENT, "does not know"),
    (400, [{"message": "x", "errorCode": "DUPLICATES_DETECTED"}], "conflict", PERMANENT, "already"),
    (400, [{"message": "x", "errorCode": "UNABLE_TO_LOCK_ROW"}], "locked", TRANSIENT, "changing"),
    (
        400,
        [{"message": "Required fields are missing: [Name]", "errorCode": "REQUIRED_FIELD_MISSING"}],
        "invalid_request",
        PERMANENT,
        "[Name]",
    ),
    (400, {"error": "invalid_grant", "error_description": "expired"}, "wrong_key", AUTH, "expired"),
    (500, [], "server_error", TRANSIENT, "500"),
]


@pytest.mark.parametrize("case", SALESFORCE_CASES)
def test_salesforce(case: Case) -> None:
    check("Salesforce", case)


def google(code: int, reason: str, status: str = "") -> dict[str, Any]:
    part = {"domain": "usageLimits", "reason": reason, "message": "Their words"}
    return {"error": {"code": code, "message": "Their words", "status": status, "errors": [part]}}


GOOGLE_CASES: list[Case] = [
    (403, google(403, "rateLimitExceeded", "PERMISSION_DENIED"), "rate_limited", RATE, "too many"),
    (403, google(403, "userRateLimitExceeded"), "rate_limited", RATE, "too many"),
    (403, google(403, "dailyLimitExceeded"), "quota_exceeded", PERMANENT, "used up"),
    (403, google(403, "insufficientPermissions"), "missing_permission", AUTH, "lacks a permission"),
    (401, google(401, "authError", "UNAUTHENTICATED"), "wrong_key", AUTH, "refused the key"),
    (404, google(404, "notFound"), "not_found", PERMANENT, "does not know"),
    (410, google(410, "fullSyncRequired"), "sync_expired", PERMANENT, "read anew"),
    (503, google(503, "backendError", "UNAVAILABLE"), "server_error", TRANSIENT, "Their words"),
    (429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, "rate_limited", RATE, "too many"),
    (
        403,
        {
            "error": {
                "status": "PERMISSION_DENIED",
                "details": [{"reason": "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}],
            }
        },
        "missing_permission",
        AUTH,
        "lacks",
    ),
    (400, {"error": "invalid_grant", "error_description": "revoked"}, "wrong_key", AUTH, "revoked"),
]


@pytest.mark.parametrize("case", GOOGLE_CASES)
def test_google(case: Case) -> None:
    check("Google", case)


def openai(code: str | None, type_: str | None = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": "Their words.", "type": type_, "param": None, "code": code}}


OPENAI_CASES: list[Case] = [
    (429, openai("insufficient_quota", "insufficient_quota"), "quota_exceeded", PERMANENT, "used up"),
    (429, openai("rate_limit_exceeded", "tokens"), "rate_limited", RATE, "too many requests"),
    (429, openai(None, "requests"), "rate_limited", RATE, "429 too many requests"),
    (401, openai("invalid_api_key"), "wrong_key", AUTH, "refused the key"),
    (400, openai("context_length_exceeded"), "too_long", PERMANENT, "longer than the model takes"),
    (404, openai("model_not_found"), "model_not_found", PERMANENT, "does not have this model"),
    (403, openai("unsupported_country_region_territory"), "not_allowed", PERMANENT, "does not allow"),
    (500, openai(None, "server_error"), "server_error", TRANSIENT, "trouble of its own: Their words"),
    (503, openai(None, None), "server_error", TRANSIENT, "503"),
    (400, openai("unsupported_value"), "invalid_request", PERMANENT, "Their words"),
    (400, openai("content_policy_violation"), "content_refused", PERMANENT, "refuses"),
    # Servers of one's own: Ollama answers a text, vLLM the inner object with a number.
    (404, {"error": "model 'qwen' not found"}, "not_found", PERMANENT, "model 'qwen' not found"),
    (
        400,
        {"object": "error", "message": "bad temperature", "type": "BadRequestError", "code": 400},
        "invalid_request",
        PERMANENT,
        "did not accept the request: bad temperature",
    ),
]


@pytest.mark.parametrize("case", OPENAI_CASES)
def test_openai(case: Case) -> None:
    check("OpenAI", case)
    check("Llama at home", case, dialect="openai")


def anthropic(type_: str, message: str = "Their words") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_011"}


ANTHROPIC_CASES: list[Case] = [
    (529, anthropic("overloaded_error", "Overloaded"), "overloaded", TRANSIENT, "is overloaded"),
    (429, anthropic("rate_limit_error"), "rate_limited", RATE, "too many"),
    (401, anthropic("authentication_error", "invalid x-api-key"), "wrong_key", AUTH, "refused the key"),
    (403, anthropic("permission_error"), "missing_permission", AUTH, "lacks a permission"),
    (400, anthropic("invalid_request_error"), "invalid_request", PERMANENT, "did not accept"),
    (
        400,
        anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API"),
        "quota_exceeded",
        PERMANENT,
        "used up",
    ),
    (404, anthropic("not_found_error", "model: claude-9"), "model_not_found", PERMANENT, "claude-9"),
    (413, anthropic("request_too_large"), "request_too_large", PERMANENT, "too large"),
    (500, anthropic("api_error"), "server_error", TRANSIENT, "trouble of its own"),
    (402, anthropic("billing_error"), "payment_required", PERMANENT, "payment"),
    (529, None, "server_error", TRANSIENT, "529"),
]


@pytest.mark.parametrize("case", ANTHROPIC_CASES)
def test_anthropic(case: Case) -> None:
    check("Anthropic", case)


PLAIN: list[Case] = [
    (400, {"message": "No table free"}, "invalid_request", PERMANENT, "No table free"),
    (400, {"error": {"message": "deep", "code": "x"}}, "invalid_request", PERMANENT, "deep"),
    (
        403,
        {"type": "about:blank", "title": "Forbidden", "status": 403, "detail": "Not yours."},
        "missing_permission",
        AUTH,
        "Not yours",
    ),
    (409, {"title": "Conflict"}, "refused", TRANSIENT, "409 conflict: Conflict"),
    (429, "slow down", "rate_limited", RATE, "slow down"),
    (503, None, "server_error", TRANSIENT, "503 service unavailable"),
    (402, {}, "payment_required", PERMANENT, "payment"),
]


@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_service(case: Case) -> None:
    check("Tables Ltd", case)


# Who answers 5xx is unwell, whatever its body calls it: real bodies of facts/providers.md behind that status

OUTAGES: list[tuple[str, int, Any, Category]] = [
    ("ElevenLabs", 503, eleven("system_busy", "The system is busy, please try again later."), TRANSIENT),
    ("ElevenLabs", 504, eleven("too_many_concurrent_requests"), TIMEOUT),
    ("ElevenLabs", 500, eleven("invalid_api_key"), TRANSIENT),
    ("Retell", 503, {"status": "system_busy", "message": "busy"}, TRANSIENT),
    ("Retell", 500, retell("Account rate limited, please throttle."), TRANSIENT),
    ("Twilio", 503, twilio(20429, 503, "Too Many Requests"), TRANSIENT),
    ("Twilio", 500, twilio(20003, 500, "Authenticate"), TRANSIENT),
    ("WhatsApp", 503, meta(130429, "Rate limit hit", is_transient=True), TRANSIENT),
    ("WhatsApp", 500, meta(4, "Application request limit reached"), TRANSIENT),
    ("WhatsApp", 503, meta(190, "Error validating access token"), TRANSIENT),
    ("HubSpot", 502, hubspot("RATE_LIMITS", policyName="TEN_SECONDLY_ROLLING"), TRANSIENT),
    ("HubSpot", 504, hubspot("RATE_LIMITS", policyName="DAILY"), TIMEOUT),
    ("Salesforce", 503, [{"message": "x", "errorCode": "REQUEST_LIMIT_EXCEEDED"}], TRANSIENT),
    ("Google", 503, google(503, "rateLimitExceeded", "UNAVAILABLE"), TRANSIENT),
    ("Google", 504, google(504, "userRateLimitExceeded", "DEADLINE_EXCEEDED"), TIMEOUT),
    ("OpenAI", 503, openai("rate_limit_exceeded", "requests"), TRANSIENT),
    ("Anthropic", 529, anthropic("rate_limit_error"), TRANSIENT),
    ("Anthropic", 500, anthropic("invalid_request_error"), TRANSIENT),
    ("Tables Ltd", 503, {"message": "Too many requests", "code": "system_busy"}, TRANSIENT),
]


@pytest.mark.parametrize(("vendor", "status", "body", "category"), OUTAGES)
def test_an_outage_is_no_rate_limit(vendor: str, status: int, body: Any, category: Category) -> None:
    error = explain(vendor, status, body).error()
    assert (error.category, error.code) == (category, "server_error")
    assert trips(error)
    assert "retry in" not in error.message


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [500, 502, 503, 504, 529])
def test_no_word_of_any_table_makes_an_outage_a_rate_limit(dialect: str, status: int) -> None:
    for word in WORDS[dialect]:
        verdict = explain(dialect, status, SPOKEN[dialect](word))
        assert verdict.category is not RATE, word
    # The same words on the status they belong to are limits, and leave the breaker alone.
    limits = [word for word, meaning in WORDS[dialect].items() if meaning.category is RATE]
    assert limits
    for word in limits:
        assert not trips(explain(dialect, 429, SPOKEN[dialect](word)).error()), word


def test_a_code_that_says_more_than_a_status_stands_on_any() -> None:
    assert explain("ElevenLabs", 500, eleven("quota_exceeded")).code == "quota_exceeded"
    assert (
        explain("Llama at home", 500, openai("context_length_exceeded"), dialect="openai").code == "too_long"
    )


WORDS: dict[str, Any] = {
    "retell": ELEVENLABS,
    "elevenlabs": ELEVENLABS,
    "twilio": TWILIO,
    "meta": META,
    "hubspot": HUBSPOT,
    "salesforce": SALESFORCE,
    "google": GOOGLE,
    "openai": OPENAI,
    "anthropic": ANTHROPIC,
}
SPOKEN: dict[str, Any] = {
    "retell": lambda word: {"status": word, "message": "Their words"},
    "elevenlabs": eleven,
    "twilio": lambda word: twilio(int(word), 503),
    "meta": lambda word: meta(int(word) if word.isdecimal() else 200),
    "hubspot": hubspot,
    "salesforce": lambda word: [{"message": "x", "errorCode": word}],
    "google": lambda word: google(503, word),
    "openai": openai,
    "anthropic": anthropic,
}


# What holds for all


def every_meaning() -> Iterator[Any]:
    for table in (TWILIO, META, ELEVENLABS, HUBSPOT, SALESFORCE, GOOGLE, OPENAI, ANTHROPIC):
        yield from table.items()


def test_every_meaning_has_a_rule_and_can_be_said() -> None:
    for word, meaning in every_meaning():
        assert meaning.code, word
        assert meaning.what or meaning.code == "missing_permission", word
        assert meaning.advice or meaning.category is RATE or meaning.code == "missing_permission"
        assert not meaning.what.endswith(".")
        assert not meaning.advice.endswith(".")


@pytest.mark.parametrize(
    ("category", "retried", "counts"),
    [
        (TRANSIENT, True, True),
        (TIMEOUT, True, True),
        (RATE, True, False),
        (PERMANENT, False, False),
        (AUTH, False, False),
    ],
)
def test_what_a_category_means_for_a_call(category: Category, retried: bool, counts: bool) -> None:
    status = {TRANSIENT: 500, TIMEOUT: 504, RATE: 429, PERMANENT: 400, AUTH: 401}[category]
    error = explain("Retell", status, None).error()
    assert error.category is category
    assert (rule_of(error).retried, trips(error)) == (retried, counts)


def test_the_answer_s_own_time_goes_before_the_vendor_s_rule() -> None:
    body = hubspot("RATE_LIMITS", policyName="TEN_SECONDLY_ROLLING")
    assert explain("HubSpot", 429, body).retry_after == 10
    assert explain("HubSpot", 429, body, {"retry-after": "3"}).retry_after == 3
    assert explain("HubSpot", 503, None, {"retry-after": "3"}).retry_after == 3


def test_a_number_is_looked_up_by_its_vendor_only() -> None:
    body = twilio(21211, 400)
    assert explain("Tables Ltd", 400, body).code == "invalid_request"
    assert explain("Tables Ltd", 400, body, dialect="twilio").code == "invalid_number"


def test_a_hostile_sentence_is_cleaned_and_cut() -> None:
    for dialect in ("", *DIALECTS):
        nasty = "\x1b[2J\u202eevil\n" + "x" * 9000
        bodies = [nasty, {"message": nasty}, {"error": {"message": nasty}}, [{"message": nasty}]]
        for body in bodies:
            message = explain("Some Vendor", 400, body, dialect=dialect).message
            assert not set(message) & {"\x1b", "\u202e", "\n"}
            assert len(message) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "errors",
                    "detail",
                    "code",
                    "type",
                    "message",
                    "status",
                    "context",
                    "missingScopes",
                    "loc",
                ]
            )
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(status=st.integers(0, 1000), data=JSON, dialect=st.sampled_from(("", *DIALECTS)))
def test_no_body_is_too_odd(status: int, data: object, dialect: str) -> None:
    verdict = explain("Some Vendor", status, data, dialect=dialect)
    assert verdict.message
    assert verdict.advice
    assert verdict.error().category in Category
    explain_body(data)


def test_it_needs_no_http_library() -> None:
    code = (
        "import sys, services.resilience.bodies; print(any(n in sys.modules for n in ('httpx', 'sqlmodel')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
