"""The filter of the calls: words that are looked for everywhere, and `field:value` for one field."""

from __future__ import annotations

from dataclasses import dataclass

from services.calls.model import END_WORDS, CallRow, EndReason, TransportKind
from services.errors import UsageError

FIELDS = ("transport", "end", "agent", "company")


@dataclass(frozen=True, slots=True)
class CallFilter:
    """What is shown; empty parts leave everything. `reasons` are alternatives."""

    text: str = ""
    transport: TransportKind | None = None
    reasons: tuple[EndReason, ...] = ()
    agent: str = ""
    company: str = ""
    typed: str = ""

    def __bool__(self) -> bool:
        return bool(self.typed)

    def matches(self, row: CallRow) -> bool:
        """Whether a row fits what the database is not asked for."""
        return (
            (not self.reasons or row.reason in self.reasons)
            and self.agent in row.agent_name.lower()
            and self.company in row.company.lower()
        )


def parse_call_filter(typed: str) -> CallFilter:
    """Read a filter. Raises UsageError (code `bad_filter`) that names the word and what is allowed."""
    words: list[str] = []
    fields: dict[str, str] = {}
    for word in typed.split():
        name, colon, value = word.partition(":")
        if not colon or name.lower() not in FIELDS:
            words.append(word)
        elif value:
            fields[name.lower()] = value.lower()
    return CallFilter(
        " ".join(words),
        _transport(fields.get("transport", "")),
        _reasons(fields.get("end", "")),
        fields.get("agent", ""),
        fields.get("company", ""),
        typed.strip(),
    )


def _transport(value: str) -> TransportKind | None:
    if not value:
        return None
    fits = [kind for kind in TransportKind if kind.value.startswith(value)]
    if len(fits) != 1:
        raise _wrong(f"transport: knows no {value!r}", ", ".join(kind.value for kind in TransportKind))
    return fits[0]


def _reasons(value: str) -> tuple[EndReason, ...]:
    """The ends a word means: `well`, `badly`, or a part of their name or words."""
    if not value:
        return ()
    if value in ("well", "badly"):
        return tuple(reason for reason in EndReason if reason.well is (value == "well"))
    wanted = value.replace("-", "_")
    fits = tuple(
        reason
        for reason in EndReason
        if wanted in reason.value or value.replace("_", " ") in END_WORDS[reason]
    )
    if not fits:
        raise _wrong(f"end: knows no {value!r}", "well, badly, or a word such as busy, lost, agent, timeout")
    return fits


def _wrong(message: str, allowed: str) -> UsageError:
    return UsageError(message, advice=f"Allowed are {allowed}", code="bad_filter")
