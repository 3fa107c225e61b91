"""A partner's mapping file: how its API is spoken to, as data.

Reading one finds every mistake with its line: of YAML, of shape, and of meaning (a placeholder nobody fills,
a setting that is not declared). `explain` is the same as text for people, made from the models themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from services.errors import UsageError
from services.http.addresses import normalize_base_url
from services.integrations.bookings.model import BookingState
from services.integrations.bookings.template import BadTemplate, Template, templates_in
from services.integrations.bookings.times import zone_named
from services.text import clean_line
from services.yaml_files import Lines, Strict, dotted, line_of, parse, read_text, validate

Tree = dict[str, Any]
MOST_PROBLEMS: Final = 8

_STANDARD: Final[Mapping[str, frozenset[str]]] = {
    "availability": frozenset({"from", "to", "minutes", "days", "party_size", "service", "practitioner"}),
    "reserve": frozenset({"at", "party_size", "name", "phone", "email", "notes", "slot", "key"}),
    "appoint": frozenset(
        {"at", "service", "practitioner", "name", "phone", "email", "birth_date", "notes", "slot", "key"}
    ),
    "cancel": frozenset({"id", "reason", "key"}),
    "probe": frozenset(),
}
_STATES: Final = tuple(state.value for state in BookingState)
_PATH: Final = re.compile(r"\.|(\*|[A-Za-z0-9_@$-]+)(\.(\*|[A-Za-z0-9_@$-]+))*")


def _checked_path(value: str) -> str:
    if value and not _PATH.fullmatch(value):
        raise ValueError("a path such as data.0.id is expected, with * for each item of a list")
    return value


class TokenCall(Strict):
    """How the secret is exchanged for an access token (client credentials)."""

    path: str = Field(description="the address, whole or below base_url")
    method: Literal["GET", "POST"] = Field(default="POST", description="GET or POST")
    user: str = Field(default="", description="the user of HTTP Basic, whose password is the secret")
    query: Tree = Field(default={}, description="query values")
    body: Tree | None = Field(
        default=None, description="a JSON body; here, and only here, {secret} is the secret"
    )
    form: Tree | None = Field(default=None, description="a form instead; {secret} as above")
    access_token: str = Field(default="access_token", description="path of the token in the answer")
    expires_in: str = Field(default="expires_in", description="path of its life in seconds")

    _paths = field_validator("access_token", "expires_in")(_checked_path)


class Auth(Strict):
    """How requests show who sends them."""

    style: Literal["none", "bearer", "header", "basic", "token"] = Field(
        description="none; bearer: the secret as a bearer token; header: in a header of its own; "
        "basic: HTTP Basic with `user`; token: exchanged for a bearer token first"
    )
    header: str = Field(default="", description="its name, for the style header")
    prefix: str = Field(default="", description="what stands before the secret in it")
    user: str = Field(default="", description="for the style basic")
    token: TokenCall | None = Field(default=None, description="for the style token")


class Step(Strict):
    """One request. Texts may hold placeholders."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = Field(description="the HTTP method")
    path: str = Field(description="below base_url; values in it are encoded")
    query: Tree = Field(default={}, description="query values")
    headers: dict[str, str] = Field(default={}, description="headers of this request, never a secret")
    body: Any = Field(default=None, description="the JSON body")
    form: Tree | None = Field(default=None, description="a form instead of a body")
    keep: dict[str, str] = Field(
        default={}, description="what later requests need of the answer, as {kept.name}: name to path"
    )

    @field_validator("keep")
    @classmethod
    def _keep(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _checked_path(path) for name, path in value.items()}


class Result(Strict):
    """Where an answer says what became of the order. Paths."""

    id: str = Field(default="", description="the partner's id of the booking")
    id_format: str = Field(default="", description="how it is kept: {settings.rid}-{result.id}")
    state: str = Field(default="", description="its state, one of `states`")
    starts_at: str = Field(default="", description="when it begins")
    fields: dict[str, str] = Field(default={}, description="what else is kept for people: name to path")

    _paths = field_validator("id", "state", "starts_at")(_checked_path)

    @field_validator("fields")
    @classmethod
    def _fields(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: _checked_path(path) for name, path in value.items()}


class Slots(Strict):
    """Where an answer lists times that are free. Paths; those of a slot begin at the slot."""

    each: str = Field(description="the slots: times.*, availabilities.*.slots.*")
    starts_at: str = Field(default=".", description="when it begins; . where the slot is the time itself")
    ends_at: str = Field(default="", description="when it ends")
    id: str = Field(default="", description="what booking it needs, as {slot}")
    seats: str = Field(default="", description="how many it has")

    _paths = field_validator("each", "starts_at", "ends_at", "id", "seats")(_checked_path)

    @field_validator("each")
    @classmethod
    def _list(cls, value: str) -> str:
        if "*" not in value:
            raise ValueError(f"* is missing: {value}.* stands for each item of a list")
        return value


class Operation(Strict):
    """Something that can be asked or ordered."""

    title: str = Field(default="", description="what it does, for people")
    read: bool = Field(default=False, description="whether it only asks; all else is an order, done once")
    params: dict[str, str] = Field(
        default={}, description="what it takes besides, as {params.name}: name to sentence; name* is required"
    )
    steps: list[Step] = Field(
        min_length=1, description="the requests in order; only the last one makes the booking"
    )
    idempotency: str = Field(
        default="", description="the header in which a key is honoured; without one nothing is sent twice"
    )
    result: Result = Field(default=Result(), description="what the last answer says")
    slots: Slots | None = Field(default=None, description="of availability: the free times in the answer")
    span_minutes: int | None = Field(
        default=None, ge=15, description="for availability: the longest time one request may cover"
    )


class Errors(Strict):
    """What refusals look like. Paths and words."""

    message: list[str] = Field(default=[], description="where the partner says why, the first that is there")
    code: list[str] = Field(default=[], description="where it says so in a word")
    taken: list[str] = Field(default=[], description="words of the message or code, or 409: the time is gone")

    @field_validator("message", "code")
    @classmethod
    def _lists(cls, value: list[str]) -> list[str]:
        return [_checked_path(path) for path in value]


class Partner(Strict):
    """One partner."""

    partner: str = Field(
        pattern=r"^[a-z][a-z0-9-]{1,39}$", description="its word, the same as the file's name"
    )
    title: str = Field(min_length=1, max_length=80, description="its name")
    documented: str = Field(min_length=1, description="what of this file is documented, where and when")
    assumed: str = Field(min_length=1, description="what is assumed, and was not tried with the partner")
    base_url: str = Field(description="where its API is; an integration may say otherwise")
    timezone: str = Field(description="of its times without offset: an IANA name or {settings.timezone}")
    settings: dict[str, str] = Field(
        default={}, description="what an integration says about itself: name to sentence; name* is required"
    )
    secret: str = Field(default="", description="what its secret is called; empty if it has none")
    auth: Auth = Field(description="how requests show who sends them")
    headers: dict[str, str] = Field(default={}, description="headers of every request")
    times: Literal["offset", "local", "epoch"] = Field(
        default="offset",
        description="how its times are written: offset: ISO 8601 with one; local: in its time zone; "
        "epoch: seconds since 1970",
    )
    states: dict[str, Literal["confirmed", "pending", "cancelled", "failed"]] = Field(
        default={}, description="its words for a booking's state to ours"
    )
    errors: Errors = Field(default=Errors(), description="what refusals look like")
    operations: dict[str, Operation] = Field(
        min_length=1,
        description="availability, reserve, appoint, cancel, probe (asks whether it works), or another word",
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return normalize_base_url(value)
        except UsageError as error:
            raise ValueError(error.message) from None

    @property
    def needed_settings(self) -> list[str]:
        return [name.rstrip("*") for name in self.settings if name.endswith("*")]

    def zone(self, settings: Mapping[str, Any]) -> ZoneInfo:
        """The time zone of its times. Raises UsageError."""
        return zone_named(str(Template.parse(self.timezone).render({"settings": settings})))

    def needs(self, operation: str) -> set[str]:
        """The values that an operation cannot do without, as placeholders call them."""
        found = set()
        for _, text in _texts_of(self.operations[operation], ()):
            found |= {hole.name for hole in Template.parse(text).placeholders if hole.needed}
        return {name for name in found if not name.startswith(("settings.", "kept."))}


def read_partner(path: Path) -> Partner:
    """A mapping file. Blocking. Raises UsageError with every mistake, each with its line."""
    partner = parse_partner(read_text(path), clean_line(path.name))
    if partner.partner != path.stem:
        raise UsageError(
            f"{clean_line(path.name)}: partner is {partner.partner!r}, not the file's name",
            advice=f"Name the file {partner.partner}.yaml, or the partner {clean_line(path.stem)}",
            code="bad_file",
        )
    return partner


def parse_partner(text: str, name: str) -> Partner:
    """The text of a mapping file; `name` is what messages call it. Raises UsageError."""
    advice = "callboard integration partners --explain describes the file"
    data, lines = parse(text, name)
    partner = validate(Partner, data, lines, name, example=advice)
    problems = [_told(path, problem, lines, name) for path, problem in _problems(partner)]
    if problems:
        shown = "; ".join(problems[:MOST_PROBLEMS])
        more = len(problems) - MOST_PROBLEMS
        raise UsageError(shown + (f"; and {more} more" if more > 0 else ""), advice=advice, code="bad_file")
    return partner


Path_ = tuple[str | int, ...]


def _told(path: Path_, problem: str, lines: Lines, name: str) -> str:
    line = line_of(path, lines)
    place = f"{name}, line {line}" if line is not None else name
    return clean_line(f"{place}: {dotted(path)}: {problem}")


def _problems(partner: Partner) -> Iterator[tuple[Path_, str]]:
    """What the shape alone does not show."""
    settings = {f"settings.{name.rstrip('*')}" for name in partner.settings}
    for path, text, known in _places(partner, settings):
        try:
            holes = Template.parse(text).placeholders
        except BadTemplate as error:
            yield path, str(error)
            continue
        for hole in holes:
            for missing in [each for each in hole.names if each not in known]:
                yield path, f"nothing fills {{{missing}}}; there is {', '.join(sorted(known)) or 'nothing'}"
    if "{" not in partner.timezone:
        try:
            zone_named(partner.timezone)
        except UsageError as error:
            yield ("timezone",), error.message
    yield from _auth_problems(partner)
    for word, operation in partner.operations.items():
        yield from _operation_problems(word, operation)


def _places(partner: Partner, settings: set[str]) -> Iterator[tuple[Path_, str, set[str]]]:
    """Every text with placeholders, with what may fill them."""
    yield ("timezone",), partner.timezone, settings
    for name, text in partner.headers.items():
        yield ("headers", name), text, settings
    yield ("auth", "user"), partner.auth.user, settings
    if partner.auth.token is not None:
        call = partner.auth.token
        for path, text in templates_in({"path": call.path, "user": call.user, "query": call.query}):
            yield ("auth", "token", *path), text, settings
        for path, text in templates_in({"body": call.body, "form": call.form}):
            yield ("auth", "token", *path), text, settings | {"secret"}
    for word, operation in partner.operations.items():
        standard = _STANDARD.get(word, frozenset({"id", "key"}))
        known = settings | standard | {f"params.{name.rstrip('*')}" for name in operation.params}
        for index, step in enumerate(operation.steps):
            for path, text in templates_in(_step_texts(step)):
                yield ("operations", word, "steps", index, *path), text, set(known)
            known |= {f"kept.{name}" for name in step.keep}
        yield ("operations", word, "result", "id_format"), operation.result.id_format, known | {"result.id"}


def _texts_of(operation: Operation, path: Path_) -> Iterator[tuple[Path_, str]]:
    for index, step in enumerate(operation.steps):
        yield from templates_in(_step_texts(step), (*path, "steps", index))


def _step_texts(step: Step) -> dict[str, Any]:
    return {
        "path": step.path,
        "query": step.query,
        "headers": step.headers,
        "body": step.body,
        "form": step.form,
    }


def _auth_problems(partner: Partner) -> Iterator[tuple[Path_, str]]:
    auth = partner.auth
    wanted = {"header": ("header", auth.header), "basic": ("user", auth.user), "token": ("token", auth.token)}
    name, value = wanted.get(auth.style, ("", True))
    if not value:
        yield ("auth", name), f"the style {auth.style} needs it"
    if (auth.style == "none") != (not partner.secret):
        yield ("secret",), "a secret has a name exactly if auth uses one"


def _operation_problems(word: str, operation: Operation) -> Iterator[tuple[Path_, str]]:
    here: Path_ = ("operations", word)
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,39}", word):
        yield here, "a word of small letters is expected"
    if word in ("availability", "probe") and not operation.read:
        yield here, f"{word} only asks: it needs read: true"
    if word in ("reserve", "appoint", "cancel") and operation.read:
        yield (*here, "read"), f"{word} changes something"
    if (word == "availability") != (operation.slots is not None):
        yield (*here, "slots"), "availability, and nothing else, says where its slots are"
    if word in ("reserve", "appoint") and not operation.result.id:
        yield (*here, "result", "id"), "where the booking's id is has to be said"
    for index, step in enumerate(operation.steps):
        place: Path_ = (*here, "steps", index)
        if not step.path.startswith("/") or "//" in step.path or "?" in step.path:
            yield (*place, "path"), "it begins with / and has neither // nor ?"
        if step.body is not None and step.form is not None:
            yield (*place, "form"), "there is a body already"
        if step.method == "GET" and (step.body is not None or step.form is not None):
            yield place, "a GET carries no body"


def explain() -> str:
    """The mapping file for people: every key, what it means and what it may be."""
    parts = [
        "A partner is one YAML file, named after it, in the folder `partners` of the data folder.",
        "A file of a partner that comes with the program replaces that one.",
    ]
    models: list[type[Strict]] = [
        Partner, Auth, TokenCall, Operation, Step, Result, Slots, Errors,
    ]  # fmt: skip
    for model in models:
        head = (model.__doc__ or "").strip().splitlines()[0]
        parts += ["", f"{model.__name__.lower()}: {head}"]
        for name, field in model.model_fields.items():
            mark = "*" if field.is_required() else " "
            parts.append(f"  {name + mark:<14} {field.description or ''}")
    parts += ["", "placeholders by operation, besides {settings.…}, {params.…} and {kept.…}:"]
    parts += [f"  {word:<14} {', '.join(sorted(names)) or '-'}" for word, names in _STANDARD.items()]
    from services.integrations.bookings.template import FILTER_HELP

    parts += ["", "filters, as in {at|local}:"]
    parts += [f"  {word:<14} {text}" for word, text in FILTER_HELP.items()]
    parts += ["", f"states of a booking: {', '.join(_STATES)}", "* is required"]
    return "\n".join(parts)
