"""Speaking to a partner as its mapping file says."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from services.clock import Clock
from services.errors import Category, ServiceError, UsageError
from services.http.client import Call, Http, HttpOptions
from services.http.wire import parse, wrong_shape
from services.integrations.bookings.mapping import Operation, Partner, Step, TokenCall
from services.integrations.bookings.model import BookingState, Outcome, Slot
from services.integrations.bookings.template import Missing, Template, dig, dig_all, rendered
from services.integrations.bookings.times import exists, is_twice, milliseconds, read_time
from services.integrations.credentials import Access, Caller, FetchedToken, FixedToken
from services.integrations.effects import NotDone
from services.integrations.model import Resolved, untestable
from services.resilience import Policy, Subject
from services.security import Secret, redact
from services.text import clean_line

USER_AGENT: Final = "callboard"
_SHOWN: Final = 400
_LAST_SECOND: Final = 32_503_680_000
"""The year 3000: what is beyond is no time of a booking."""

_ASKED_FOR: Final[Mapping[str, tuple[str, str]]] = {
    "party_size": ("how many people come", "--party"),
    "service": ("which service", "--service"),
    "practitioner": ("with whom", "--practitioner"),
    "name": ("a name", "--name"),
    "phone": ("a phone number", "--phone"),
    "email": ("an e-mail address", "--email"),
    "birth_date": ("a date of birth", "--birth-date"),
    "notes": ("a note", "--notes"),
    "slot": ("a slot of the availability", "--slot"),
    "at": ("a time", "--at"),
}
"""What a missing value is for people, and the option that gives it."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked or ordered: the values that placeholders name. `key`: the idempotency key of an order."""

    values: Mapping[str, Any]
    key: str = ""
    subject: Subject | None = None
    params: Mapping[str, Any] = field(default_factory=dict)


class DirectPartner:
    """One integration of one partner. Belongs to one event loop; `aclose` ends it."""

    def __init__(
        self, partner: Partner, resolved: Resolved, policy: Policy, clock: Clock, *, timeout: float = 30.0
    ) -> None:
        """Raises UsageError when a setting is missing or the time zone is none."""
        self.partner = partner
        self._settings = dict(resolved.info.config)
        for name in partner.needed_settings:
            if not self._settings.get(name):
                raise UsageError(
                    f"The integration {resolved.info.name} lacks the setting {name}",
                    advice="Remove it and add it again with --set",
                    code="missing_option",
                )
        self.zone: ZoneInfo = partner.zone(self._settings)
        self._options = HttpOptions(
            vendor=partner.title,
            base_url=resolved.info.base_url or partner.base_url,
            key=None,
            clock=clock,
            timeout=timeout,
            user_agent=USER_AGENT,
            policy=policy,
            explain=self._explain,
        )
        self._clock = clock
        self._secret = resolved.secret
        self._caller = self._made()

    def offers(self, operation: str) -> bool:
        return operation in self.partner.operations

    async def availability(self, begin: dt.datetime, end: dt.datetime, order: Order) -> list[Slot]:
        """The free times from `begin` to before `end`, in their order. Raises ServiceError."""
        operation = self._operation("availability")
        found: dict[tuple[int, str], Slot] = {}
        for start, stop in _pieces(begin, end, operation.span_minutes):
            minutes = round((stop - start).total_seconds() / 60)
            days = (stop - dt.timedelta(microseconds=1)).date() - start.date()
            values = {
                **order.values,
                "from": start.astimezone(self.zone),
                "to": stop.astimezone(self.zone),
                "minutes": minutes,
                "days": days.days + 1,
            }
            data = await self._asked(operation, values, order)
            for slot in self._slots(operation, data):
                if milliseconds(begin) <= slot.starts_at < milliseconds(end):
                    found[slot.starts_at, slot.id] = slot
        return [found[key] for key in sorted(found)]

    def prepare(self, name: str, order: Order) -> None:
        """Render everything once, so that what is missing is told before anything is stored or sent."""
        operation = self._operation(name)
        kept: dict[str, Any] = {}
        for step in operation.steps:
            self._call(step, self._values(order, kept))
            kept |= dict.fromkeys(step.keep, "kept")

    async def order(self, name: str, order: Order) -> Outcome:
        """Perform an order. Only its last step makes it: a failure of an earlier one is raised as NotDone."""
        operation = self._operation(name)
        kept: dict[str, Any] = {}
        data: Any = None
        for index, step in enumerate(operation.steps):
            last = index == len(operation.steps) - 1
            key = order.key if last else f"{order.key}-{index + 1}"
            try:
                data = await self._send(operation, step, self._values(order, kept), key, order.subject)
            except ServiceError as error:
                if last:
                    raise
                raise NotDone.because(error) from None
            kept |= self._keep(step, data, last=last)
        return self._outcome(name, operation, data, self._values(order, kept))

    async def ask(self, name: str, order: Order) -> Mapping[str, Any]:
        """Ask something that changes nothing; the mapped fields of the answer, or all of it."""
        operation = self._operation(name)
        data = await self._asked(operation, dict(order.values), order)
        fields = {key: dig(data, path) for key, path in operation.result.fields.items()}
        return fields or (data if isinstance(data, dict) else {"answer": data})

    async def probe(self) -> str:
        """Ask whether the partner knows us, by the free question of its mapping file; one line.

        Raises ServiceError, `untestable` where the file names none.
        """
        if not self.offers("probe"):
            raise untestable(f"{self.partner.title} offers no way to ask")
        await self._asked(self._operation("probe"), {}, Order({}))
        return f"{self.partner.title} answers"

    async def aclose(self) -> None:
        await self._caller.aclose()

    # Requests

    def _made(self) -> Caller:
        auth, options = self.partner.auth, self._options
        if auth.style == "header":
            options = replace(options, header=auth.header, prefix=auth.prefix)
        if auth.style == "basic":
            options = replace(options, user=self._text(auth.user))
        if auth.style == "token" and auth.token is not None:
            call = auth.token
            return Caller(options, FetchedToken(lambda: self._fetch(call), self._clock))
        return Caller(options, FixedToken(self._secret))

    async def _fetch(self, token: TokenCall) -> tuple[Access, float]:
        """Exchange the secret for an access token. Not through the policy: it is not the partner's API."""
        address = self._text(token.path)
        base, path = self._options.base_url, address
        if "://" in address:
            parts = urlsplit(address)
            base, path = f"{parts.scheme}://{parts.netloc}", parts.path
        values = {"settings": self._settings, "secret": self._secret.reveal()}
        user = self._text(token.user) if token.user else ""
        options = replace(
            self._options, base_url=base, user=user, key=self._secret if user else None, policy=None
        )
        http = Http(options)
        try:
            data = await http.read(
                Call(
                    token.method,
                    path,
                    params=rendered(token.query, values) or None,
                    body=None if token.body is None else rendered(token.body, values),
                    form=None if token.form is None else rendered(token.form, values),
                ),
                _document,
                attempts=2,
            )
        except ServiceError as error:
            # The secret stood in the body: an answer that repeats it must not show it.
            raise ServiceError(
                redact(error.message), category=error.category, advice=error.advice, code=error.code
            ) from None
        finally:
            await http.aclose()
        value = dig(data, token.access_token)
        if not isinstance(value, str) or not value:
            raise ServiceError(
                f"{self.partner.title} gave no access token",
                advice=f"Compare access_token in the mapping file of {self.partner.partner} with its answer",
                code="wrong_shape",
            )
        life = dig(data, token.expires_in)
        return Access(Secret(value)), float(life) if isinstance(life, int | float) else 600.0

    async def _asked(self, operation: Operation, values: Mapping[str, Any], order: Order) -> Any:
        kept: dict[str, Any] = {}
        data: Any = None
        for index, step in enumerate(operation.steps):
            call = self._call(step, self._values(Order(values, params=order.params), kept))
            data = await self._caller.read(call, _document, subject=order.subject)
            kept |= self._keep(step, data, last=index == len(operation.steps) - 1)
        return data

    async def _send(
        self, operation: Operation, step: Step, values: Mapping[str, Any], key: str, subject: Subject | None
    ) -> Any:
        call = self._call(step, values)
        repeatable = bool(operation.idempotency)
        if repeatable:
            call = Call(
                call.method,
                call.path,
                call.params,
                call.body,
                call.form,
                {**(call.headers or {}), operation.idempotency: key},
            )
        return await self._caller.read(
            call, _document, write=True, idempotency_key=key if repeatable else None, subject=subject
        )

    def _call(self, step: Step, values: Mapping[str, Any]) -> Call:
        try:
            query = rendered(step.query, values)
            return Call(
                step.method,
                Template.parse(step.path).render_path(values),
                params={name: _query_value(value) for name, value in query.items()} or None,
                body=None if step.body is None else rendered(step.body, values),
                form=None if step.form is None else rendered(step.form, values),
                headers={**rendered(self.partner.headers, values), **rendered(step.headers, values)} or None,
            )
        except Missing as missing:
            raise self._lacks(missing.name) from None

    def _values(self, order: Order, kept: Mapping[str, Any]) -> dict[str, Any]:
        at = order.values.get("at")
        local = {"at": at.astimezone(self.zone)} if isinstance(at, dt.datetime) else {}
        return {
            **order.values,
            **local,
            "settings": self._settings,
            "params": order.params,
            "kept": kept,
            "key": order.key,
        }

    def _keep(self, step: Step, data: Any, *, last: bool) -> dict[str, Any]:
        found = {name: dig(data, path) for name, path in step.keep.items()}
        missing = [path for name, path in step.keep.items() if found[name] is None]
        if missing and not last:
            # The step that makes the booking is still to come.
            raise NotDone(
                f"{self.partner.title} answered without {missing[0]}, which the next request needs",
                advice=f"Compare the mapping file of {self.partner.partner} with the partner's answer",
                code="wrong_shape",
            )
        return found

    def _text(self, template: str) -> str:
        try:
            return str(Template.parse(template).render({"settings": self._settings}))
        except Missing as missing:
            raise self._lacks(missing.name) from None

    def _lacks(self, name: str) -> UsageError:
        what, option = _ASKED_FOR.get(name, (name, ""))
        if name.startswith("settings."):
            what, option = f"the setting {name.removeprefix('settings.')}", "--set of the integration"
        elif name.startswith("params."):
            what, option = name.removeprefix("params."), "--set"
        return UsageError(
            f"{self.partner.title} needs {what}",
            advice=f"Give it with {option}" if option else "",
            code="missing_value",
        )

    def _operation(self, name: str) -> Operation:
        operation = self.partner.operations.get(name)
        if operation is None:
            offered = ", ".join(word for word in self.partner.operations if word != "probe")
            raise UsageError(
                f"{self.partner.title} does not offer {clean_line(name)}",
                advice=f"It offers {offered}",
                code="not_offered",
            )
        return operation

    # Answers

    def _outcome(self, name: str, operation: Operation, data: Any, values: Mapping[str, Any]) -> Outcome:
        result = operation.result
        found = dig(data, result.id) if result.id else None
        provider_id = "" if found is None else str(found)
        if result.id and not provider_id:
            # It was accepted: that its answer lacks the id does not undo it.
            raise ServiceError(
                f"{self.partner.title} accepted it, but its answer names no booking ({result.id})",
                category=Category.TRANSIENT,
                advice="Look there, then settle it: callboard booking settle",
                code="answer_lost",
            )
        if provider_id and result.id_format:
            named = {**values, "result": {"id": provider_id}}
            provider_id = str(Template.parse(result.id_format).render(named))
        state = BookingState.CANCELLED if name == "cancel" else BookingState.CONFIRMED
        if result.state:
            word = str(dig(data, result.state) or "")
            # A word that nobody explained is no confirmation.
            state = BookingState(self.partner.states.get(word, BookingState.PENDING))
        fields = {key: dig(data, path) for key, path in result.fields.items()}
        at = self._moment(dig(data, result.starts_at), set()) if result.starts_at else None
        return Outcome(provider_id, state, at, {key: _short(value) for key, value in fields.items()})

    def _slots(self, operation: Operation, data: Any) -> list[Slot]:
        mapped = operation.slots
        if mapped is None:
            return []
        head = mapped.each.partition("*")[0].rstrip(".")
        if not isinstance(dig(data, head or "."), list):
            raise ServiceError(
                f"{self.partner.title} answered without its list of times ({head or 'the answer itself'})",
                advice=f"Compare slots in the mapping file of {self.partner.partner} with the answer",
                code="wrong_shape",
            )
        slots = []
        seen: set[str] = set()
        for item in dig_all(data, mapped.each):
            told = dig(item, mapped.starts_at)
            begins = self._moment(told, seen)
            if begins is None:
                raise ServiceError(
                    f"{self.partner.title} names a time that cannot be read: {_short(told)!r}",
                    advice=f"Compare slots and times in the mapping file of {self.partner.partner} with it",
                    code="wrong_shape",
                )
            seats = dig(item, mapped.seats) if mapped.seats else None
            slots.append(
                Slot(
                    begins,
                    self._moment(dig(item, mapped.ends_at), set()) if mapped.ends_at else None,
                    str(dig(item, mapped.id) or "") if mapped.id else "",
                    seats if isinstance(seats, int) else None,
                    self.zone.key,
                )
            )
        return slots

    def _moment(self, value: Any, seen: set[str]) -> int | None:
        """Epoch milliseconds of a partner's time; None for what is none.

        `seen`: local times of the same list; one that occurs twice on the clock means the first at first.
        """
        if self.partner.times == "epoch":
            usable = isinstance(value, int | float) and not isinstance(value, bool)
            return round(float(value) * 1000) if usable and 0 <= value <= _LAST_SECOND else None
        at = read_time(value)
        if at is None:
            return None
        if at.tzinfo is None:
            if self.partner.times == "offset":
                return None
            at = at.replace(tzinfo=self.zone)
            if not exists(at):
                return None
            shown = at.isoformat()
            if is_twice(at) and shown in seen:
                at = at.replace(fold=1)
            seen.add(shown)
        return milliseconds(at)

    def _explain(self, status: int, data: object) -> ServiceError | None:
        """A refusal in the partner's own words; None for what every service means alike."""
        if not 400 <= status < 500 or status in (401, 403, 408, 429):
            return None
        errors = self.partner.errors
        message = next((text for path in errors.message if (text := _short(dig(data, path)))), "")
        code = next((text for path in errors.code if (text := _short(dig(data, path)))), "")
        told = f"{message} {code}".casefold()
        taken = any(word == str(status) or word.casefold() in told for word in errors.taken)
        because = f": {message.rstrip('.')}" if message else ""
        if taken:
            return ServiceError(
                f"{self.partner.title} has that time no more{because}",
                advice="Ask for free times again: callboard booking availability",
                code="taken",
            )
        if status == 404:
            return ServiceError(
                f"{self.partner.title} does not know what was asked for{because}",
                advice="Check the settings of the integration and the id",
                code="not_found",
            )
        if not message and status not in (400, 409, 422):
            return None
        return ServiceError(
            f"{self.partner.title} refused it{because or f' ({status})'}",
            advice="Correct what it names; the settings of the integration may be wrong, too",
            code="refused",
        )


def _document(text: str) -> Any:
    """An answer: JSON, or nothing at all."""
    if not text.strip():
        return {}
    data = parse(text).data
    if not isinstance(data, dict | list):
        raise wrong_shape("an object or a list", data)
    return data


def _pieces(
    begin: dt.datetime, end: dt.datetime, span_minutes: int | None
) -> list[tuple[dt.datetime, dt.datetime]]:
    """The range in pieces that one request may cover, measured in elapsed time."""
    start, stop = begin.astimezone(dt.UTC), end.astimezone(dt.UTC)
    span = dt.timedelta(minutes=span_minutes) if span_minutes else stop - start
    pieces = []
    while start < stop:
        pieces.append((start.astimezone(begin.tzinfo), min(start + span, stop).astimezone(begin.tzinfo)))
        start += span
    return pieces


def _query_value(value: Any) -> str | int:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, int | str) else json.dumps(value)


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clean_line(text)[:_SHOWN]
