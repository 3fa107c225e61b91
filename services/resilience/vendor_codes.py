"""What the code words and numbers in vendors' error bodies mean, one table for each dialect.

Sources: the vendors' published specs and SDKs where they name codes (ElevenLabs, HubSpot's categories, the
examples in Meta's document v23.0); Twilio's error dictionary (twilio.com/docs/api/errors) and Meta's page
"WhatsApp error codes", looked up in November 2026 there or in lists made from them. What neither names is
general knowledge and marked [gen]: single numbers of those two, Salesforce, Google, OpenAI, Anthropic. A code
that is in no table is told by its status and the vendor's own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.errors import Category

_PERMANENT, _TRANSIENT = Category.PERMANENT, Category.TRANSIENT
_RATE, _TIMEOUT, _AUTH = Category.RATE_LIMIT, Category.TIMEOUT, Category.AUTHENTICATION


@dataclass(frozen=True, slots=True)
class Meaning:
    """One kind of failure. `what` goes on after the vendor's name; `{vendor}` in `advice` is that name."""

    category: Category
    code: str
    what: str
    advice: str = ""
    """Empty for the usual one of a rate limit: how long to wait."""
    wait: float | None = None
    """Seconds to wait where the vendor's rule names a time and its answer does not."""


WRONG_KEY: Final = Meaning(
    _AUTH, "wrong_key", "refused the key", "Create or copy a valid API key at {vendor} and {again}"
)
MISSING_PERMISSION: Final = Meaning(_AUTH, "missing_permission", "")
QUOTA: Final = Meaning(
    _PERMANENT,
    "quota_exceeded",
    "says the quota of this account is used up",
    "Raise the quota or the plan at {vendor}, or wait for the next period",
)
PAYMENT: Final = Meaning(
    _PERMANENT, "payment_required", "wants a payment first", "Set up billing for this account at {vendor}"
)
SUSPENDED: Final = Meaning(
    _PERMANENT, "account_suspended", "has suspended this account", "Look at the account's console at {vendor}"
)
NOT_FOUND: Final = Meaning(
    _PERMANENT,
    "not_found",
    "does not know what was asked for",
    "It was deleted at {vendor}, or the base URL or the key belongs elsewhere",
)
INVALID: Final = Meaning(
    _PERMANENT, "invalid_request", "did not accept the request", "Correct what the message names"
)
CONFLICT: Final = Meaning(
    _PERMANENT, "conflict", "has something like this already", "Look it up at {vendor} and use or change that"
)
TOO_BIG: Final = Meaning(_PERMANENT, "request_too_large", "finds the request too large", "Send less at once")
BUSY: Final = Meaning(_RATE, "rate_limited", "says that it is busy")
TOO_MANY: Final = Meaning(_RATE, "rate_limited", "answered that there were too many requests")
UNWELL: Final = Meaning(
    _TRANSIENT,
    "server_error",
    "has trouble of its own",
    "Try again in a few minutes; if it stays, look at the status page of {vendor}",
)
SLOW: Final = Meaning(_TIMEOUT, "server_error", "took too long inside", UNWELL.advice)
FORBIDDEN: Final = Meaning(
    _PERMANENT, "not_allowed", "does not allow that", "Look at the terms of {vendor} for this account"
)

_BAD_NUMBER: Final = Meaning(
    _PERMANENT, "invalid_number", "says that this is not a number it can reach", "Check the number"
)
_BAD_SENDER: Final = Meaning(
    _PERMANENT,
    "invalid_sender",
    "cannot send from this sender",
    "Choose a sender of this account at {vendor}",
)
_OPTED_OUT: Final = Meaning(
    _PERMANENT,
    "opted_out",
    "says that the recipient wants no messages from this sender",
    "Only the recipient can undo that, by writing START",
)
_NO_REGION: Final = Meaning(
    _PERMANENT,
    "not_allowed",
    "does not let this account reach that country",
    "Allow the country in {vendor}'s geographic permissions",
)
_UNDELIVERABLE: Final = Meaning(
    _PERMANENT,
    "undeliverable",
    "cannot deliver to this recipient",
    "Check the number, or use another channel",
)
_FILTERED: Final = Meaning(
    _PERMANENT,
    "filtered",
    "says that a filter stopped the message",
    "Change the text, or register the sender with the carriers",
)
_WINDOW: Final = Meaning(
    _PERMANENT,
    "window_closed",
    "delivers free text only within 24 hours of the user's last message",
    "Send an approved template instead",
)
_UNREGISTERED: Final = Meaning(
    _PERMANENT, "invalid_sender", "does not know this sender as registered", "Register it at {vendor} first"
)

TWILIO: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # 20404, 20500 and 30034 [gen]
        "20003": WRONG_KEY,
        "20005": SUSPENDED,
        "20404": NOT_FOUND,
        "20429": TOO_MANY,
        "20500": UNWELL,
        "21211": _BAD_NUMBER,
        "21212": _BAD_SENDER,
        "21214": _BAD_NUMBER,
        "21215": _NO_REGION,
        "21216": _NO_REGION,
        "21217": _BAD_NUMBER,
        "21408": _NO_REGION,
        "21606": _BAD_SENDER,
        "21608": Meaning(
            _PERMANENT,
            "not_allowed",
            "lets a trial account reach verified numbers only",
            "Verify the number in {vendor}'s console, or upgrade the account",
        ),
        "21610": _OPTED_OUT,
        "21611": Meaning(_RATE, "rate_limited", "says that the sender's queue is full"),
        "21612": _UNDELIVERABLE,
        "21614": Meaning(
            _PERMANENT, "invalid_number", "says that this is no mobile number", "Use another channel"
        ),
        "21617": Meaning(_PERMANENT, "too_long", "finds the text too long", "Shorten it to 1,600 characters"),
        "30001": Meaning(_RATE, "rate_limited", "says that the sending queue is full"),
        "30002": SUSPENDED,
        "30003": Meaning(
            _TRANSIENT,
            "unreachable_recipient",
            "could not reach the telephone",
            "It is switched off or out of reach; try again later",
        ),
        "30004": Meaning(
            _PERMANENT,
            "blocked",
            "says that the recipient or its carrier blocks the sender",
            "Use another channel",
        ),
        "30005": Meaning(
            _PERMANENT, "invalid_number", "says that this number does not exist any more", "Check the number"
        ),
        "30006": Meaning(
            _PERMANENT,
            "undeliverable",
            "says that this is a landline or a carrier without text messages",
            "Use another channel",
        ),
        "30007": _FILTERED,
        "30008": Meaning(
            _PERMANENT,
            "undeliverable",
            "says that the carrier gave no reason",
            "Try once more, or use another channel",
        ),
        "30034": Meaning(
            _PERMANENT,
            "filtered",
            "does not send from an unregistered number to this country",
            "Register the number for A2P 10DLC in {vendor}'s console",
        ),
        "63016": _WINDOW,
        "63018": TOO_MANY,
        "70051": MISSING_PERMISSION,
    }
)

META: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # 131016, 131031, 131042, 132005, 132012 and 133010 [gen]
        "0": WRONG_KEY,
        "1": UNWELL,
        "2": UNWELL,
        "4": TOO_MANY,
        "10": MISSING_PERMISSION,
        "17": TOO_MANY,
        "100": INVALID,
        "104": WRONG_KEY,
        "190": WRONG_KEY,
        "permission": MISSING_PERMISSION,
        "368": Meaning(
            _PERMANENT,
            "blocked",
            "has blocked this account for a breach of its rules",
            "Look at the account's quality and rules at {vendor}",
        ),
        "613": TOO_MANY,
        "803": NOT_FOUND,
        "80007": TOO_MANY,
        "130429": Meaning(_RATE, "rate_limited", "says that more messages a second are too many"),
        "131000": UNWELL,
        "131016": UNWELL,
        "131026": Meaning(
            _PERMANENT,
            "undeliverable",
            "cannot deliver to this recipient",
            "The recipient has no WhatsApp, an old one, or has not accepted its terms: use another channel",
        ),
        "131031": SUSPENDED,
        "131042": PAYMENT,
        "131047": _WINDOW,
        "130497": Meaning(
            _PERMANENT,
            "not_allowed",
            "does not let this account write to users of that country",
            "Use another channel",
        ),
        "131049": Meaning(
            _PERMANENT,
            "held_back",
            "did not deliver it, so that the user gets fewer marketing messages",
            "Send it again after a day at the earliest, or use another channel",
        ),
        "131050": Meaning(
            _PERMANENT,
            "opted_out",
            "says that the recipient wants no marketing messages from this sender",
            "Only the recipient can undo that",
        ),
        "131048": Meaning(
            _RATE,
            "spam_limited",
            "holds messages back, because many recipients blocked or reported this sender",
            "Send less and better wanted messages; look at the number's quality at {vendor}",
            wait=3600.0,
        ),
        "131051": Meaning(
            _PERMANENT, "unsupported", "does not know this type of message", "Send text or a template"
        ),
        "131056": Meaning(
            _RATE, "pair_limited", "says that this recipient was written to too often", wait=60.0
        ),
        "132000": Meaning(
            _PERMANENT,
            "template_mismatch",
            "says that the template takes another number of parameters",
            "Give exactly the parameters that the template has",
        ),
        "132001": Meaning(
            _PERMANENT,
            "template_missing",
            "has no such template in this language, or has not approved it",
            "Check name and language of the template at {vendor}",
        ),
        "132005": Meaning(
            _PERMANENT,
            "too_long",
            "finds the template's text too long when filled in",
            "Shorten the parameters",
        ),
        "132012": Meaning(
            _PERMANENT,
            "template_mismatch",
            "says that a parameter is not of the kind that the template has",
            "Give the parameters as the template has them",
        ),
        "132015": Meaning(
            _PERMANENT,
            "template_paused",
            "has paused this template for its low quality",
            "Edit the template at {vendor}, or use another",
        ),
        "132016": Meaning(
            _PERMANENT, "template_paused", "has disabled this template for good", "Use another template"
        ),
        "133010": _UNREGISTERED,
    }
)

ELEVENLABS: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "invalid_api_key": WRONG_KEY,
        "quota_exceeded": QUOTA,
        "missing_permissions": MISSING_PERMISSION,
        "missing_permission": MISSING_PERMISSION,
        "system_busy": BUSY,
        "too_many_concurrent_requests": Meaning(
            _RATE, "rate_limited", "answered that there were too many requests at once"
        ),
        "max_character_limit_exceeded": Meaning(
            _PERMANENT, "too_long", "finds the text too long", "Shorten it, or raise the plan at {vendor}"
        ),
    }
)

HUBSPOT: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # the policies' names before the categories: they say more
        "SECONDLY": Meaning(_RATE, "rate_limited", "answered that there were too many requests", wait=1.0),
        "TEN_SECONDLY_ROLLING": Meaning(
            _RATE, "rate_limited", "answered that there were too many requests in ten seconds", wait=10.0
        ),
        "DAILY": Meaning(
            _RATE,
            "daily_limit",
            "says that this day's requests are used up",
            "Wait until tomorrow, or raise the limit at {vendor}",
            # Nobody says when the account's day ends; asking again within the hour is in vain.
            wait=3600.0,
        ),
        "RATE_LIMITS": TOO_MANY,
        "RATE_LIMIT": TOO_MANY,
        "INVALID_AUTHENTICATION": WRONG_KEY,
        "EXPIRED_AUTHENTICATION": WRONG_KEY,
        "MISSING_SCOPES": MISSING_PERMISSION,
        "OBJECT_NOT_FOUND": NOT_FOUND,
        "CONFLICT": CONFLICT,
        "OBJECT_ALREADY_EXISTS": CONFLICT,
        "VALIDATION_ERROR": INVALID,
    }
)

SALESFORCE: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # [gen]
        "INVALID_SESSION_ID": WRONG_KEY,
        "invalid_grant": WRONG_KEY,
        "invalid_client": WRONG_KEY,
        "invalid_client_id": WRONG_KEY,
        "REQUEST_LIMIT_EXCEEDED": Meaning(
            _RATE,
            "daily_limit",
            "says that the organisation's requests of 24 hours are used up",
            "Wait some hours, or raise the limit at {vendor}",
            wait=3600.0,
        ),
        "INSUFFICIENT_ACCESS": MISSING_PERMISSION,
        "INSUFFICIENT_ACCESS_OR_READONLY": MISSING_PERMISSION,
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": MISSING_PERMISSION,
        "API_DISABLED_FOR_ORG": MISSING_PERMISSION,
        "API_CURRENTLY_DISABLED": UNWELL,
        "NOT_FOUND": NOT_FOUND,
        "ENTITY_IS_DELETED": NOT_FOUND,
        "DUPLICATE_VALUE": CONFLICT,
        "DUPLICATES_DETECTED": CONFLICT,
        "UNABLE_TO_LOCK_ROW": Meaning(
            _TRANSIENT, "locked", "says that somebody else is just changing that record", "Try again"
        ),
        "SERVER_UNAVAILABLE": UNWELL,
        "QUERY_TIMEOUT": SLOW,
    }
)

GOOGLE: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # reasons before statuses; [gen]
        "rateLimitExceeded": TOO_MANY,
        "userRateLimitExceeded": TOO_MANY,
        "dailyLimitExceeded": QUOTA,
        "quotaExceeded": QUOTA,
        "authError": WRONG_KEY,
        "insufficientPermissions": MISSING_PERMISSION,
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT": MISSING_PERMISSION,
        "accessNotConfigured": MISSING_PERMISSION,
        "notFound": NOT_FOUND,
        "duplicate": CONFLICT,
        "backendError": UNWELL,
        "fullSyncRequired": Meaning(
            _PERMANENT, "sync_expired", "wants everything read anew", "Read the calendar from the beginning"
        ),
        "invalid_grant": WRONG_KEY,
        "invalid_client": WRONG_KEY,
        "UNAUTHENTICATED": WRONG_KEY,
        "PERMISSION_DENIED": MISSING_PERMISSION,
        "RESOURCE_EXHAUSTED": TOO_MANY,
        "NOT_FOUND": NOT_FOUND,
        "ALREADY_EXISTS": CONFLICT,
        "UNAVAILABLE": UNWELL,
        "INTERNAL": UNWELL,
        "DEADLINE_EXCEEDED": SLOW,
    }
)

_NO_MODEL: Final = Meaning(
    _PERMANENT,
    "model_not_found",
    "does not have this model, or not for this key",
    "Choose another model of {vendor}",
)
_TOO_LONG: Final = Meaning(
    _PERMANENT,
    "too_long",
    "finds the prompt longer than the model takes",
    "Shorten it, or choose another model",
)
_REFUSED: Final = Meaning(
    _PERMANENT, "content_refused", "refuses this content by its rules", "Change what is asked"
)

OPENAI: Final[Mapping[str, Meaning]] = MappingProxyType(
    {  # a 429 too, but waiting does not help: the account has no money left; [gen]
        "insufficient_quota": QUOTA,
        "billing_hard_limit_reached": QUOTA,
        "billing_not_active": PAYMENT,
        "rate_limit_exceeded": TOO_MANY,
        "rate_limit_error": TOO_MANY,
        "invalid_api_key": WRONG_KEY,
        "account_deactivated": SUSPENDED,
        "context_length_exceeded": _TOO_LONG,
        "string_above_max_length": _TOO_LONG,
        "model_not_found": _NO_MODEL,
        "content_policy_violation": _REFUSED,
        "content_filter": _REFUSED,
        "unsupported_country_region_territory": FORBIDDEN,
        "server_error": UNWELL,
        "api_error": UNWELL,
        "overloaded_error": Meaning(_TRANSIENT, "overloaded", "is overloaded", UNWELL.advice),
        "authentication_error": WRONG_KEY,
        "permission_error": MISSING_PERMISSION,
    }
)

ANTHROPIC: Final[Mapping[str, Meaning]] = MappingProxyType(
    {
        "overloaded_error": Meaning(_TRANSIENT, "overloaded", "is overloaded", UNWELL.advice),
        "rate_limit_error": TOO_MANY,
        "authentication_error": WRONG_KEY,
        "permission_error": MISSING_PERMISSION,
        "billing_error": PAYMENT,
        "not_found_error": _NO_MODEL,
        "request_too_large": TOO_BIG,
        "timeout_error": SLOW,
        "api_error": UNWELL,
        "invalid_request_error": INVALID,
    }
)
