"""What a failed order leaves behind: certainly nothing, perhaps something, and whether anything was sent."""

from __future__ import annotations

from typing import Final

from services.errors import Category, ServiceError

_NOTHING_SENT: Final = frozenset({
    "unreachable", "breaker_open", "limited", "certificate", "tls", "no_key",
})  # fmt: skip
"""Codes of failures on our side or on the way, before the other side heard of it."""
_CERTAIN: Final = _NOTHING_SENT | {"closed", "not_taken"}
"""Codes of failures before anything was ordered; `not_taken`: the other side said so itself."""
_UNREADABLE: Final = frozenset({"html", "not_json", "truncated", "too_deep", "too_large", "wrong_shape"})
"""Codes of answers that cannot be read: what they answer may well have been done."""


class NotDone(ServiceError):
    """A failure before the order itself was sent: whatever its category, nothing happened."""

    @classmethod
    def because(cls, error: ServiceError) -> NotDone:
        return cls(
            error.message,
            category=error.category,
            advice=error.advice,
            code=error.code,
            retry_after=error.retry_after,
        )


def is_uncertain(error: ServiceError) -> bool:
    """Whether what was ordered may have happened although the order failed.

    Only failures that happen before the order can have arrived, and plain refusals, are certain; of an order
    that was tried several times every attempt counts.
    """
    if isinstance(error, NotDone):
        return False
    return any(_is_doubtful(each) for each in (error, *error.earlier))


def was_never_sent(error: ServiceError) -> bool:
    """Whether no attempt at the order reached the other side, so that the same order may be tried again.

    A refusal by the other side is not that: it heard of the order, and another answer may be another deed.
    """
    tried = () if isinstance(error, NotDone) else error.earlier
    return all(each.code in _NOTHING_SENT for each in (error, *tried))


def _is_doubtful(error: ServiceError) -> bool:
    if error.code in _CERTAIN:
        return False
    return error.code in _UNREADABLE or error.category in (Category.TIMEOUT, Category.TRANSIENT)
