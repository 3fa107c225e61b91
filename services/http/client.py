"""The one way requests leave the program: pooled, bounded, through a policy, and explained when they fail.

The policy (`services.resilience`) decides on limit, breaker and retries; one attempt happens here, with a
place in flight for as long as it takes. What is not safe to repeat goes through here with `write=True`.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import os
import random
import ssl
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar
from urllib.parse import quote, urlsplit

# What httpx would import at its first request, on the event loop and for 80 ms.
import anyio._backends._asyncio  # noqa: F401
import httpcore  # noqa: F401
import httpx

from services.clock import Clock
from services.errors import Category, ServiceError
from services.http import failures
from services.http.addresses import normalize_base_url
from services.http.cache import closed
from services.http.failures import CONNECT_TIMEOUT, Peer
from services.http.places import ClientStats, Limiter, Slot
from services.http.rates import read_rates
from services.http.wire import NotJson, Wire, parse
from services.resilience import (
    Attempt,
    BreakerOptions,
    BreakerState,
    Policies,
    Policy,
    RetryOptions,
    Subject,
    time_left,
)
from services.security import Secret

log = logging.getLogger(__name__)
T = TypeVar("T")

LONGEST_HOLD: Final = RetryOptions().budget
"""Seconds a vendor's 429 may keep everything back; beyond that each call decides for itself."""
MAX_BODY: Final = 64 * 1024 * 1024
INLINE_JSON: Final = 64 * 1024
"""Bytes up to which a body is parsed on the loop; a larger one goes to a thread."""
IDEMPOTENCY: Final = "idempotency-key"
OF_TIME_LEFT: Final = 0.9
"""The part that a request takes of the time that whoever asks has left."""
_FIRST_GLANCE: Final = 0.05
_LONGEST_GLANCE: Final = 0.5

# Retries are told in our own words; and httpx would log every URL at INFO.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class KeyHeader(httpx.Auth):
    """Puts the key into a request at the moment it is sent, so that no stored object carries it."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        options = self._options
        if options.user:
            pair = f"{options.user}:{options.key.reveal() if options.key else ''}".encode()
            request.headers["authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif options.key:
            request.headers[options.header] = options.prefix + options.key.reveal()
        yield request


@dataclass(frozen=True, slots=True)
class Call:
    """One request: method, path below the base URL, query values (None is left out), a body.

    The body is JSON, or a form, or a form with `files`: name, content and media type by field; or
    `content`, sent as it is (a signature was made of these very bytes). `headers` come on top of the
    client's own and never carry a secret.
    """

    method: str
    path: str
    params: Mapping[str, str | int | None] | None = None
    body: object = None
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = None
    files: Mapping[str, tuple[str, bytes, str]] | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How one connection is spoken to. `timeout`: seconds one attempt may take, connecting to last byte.

    The key goes into `header` behind `prefix`; with a `user` both are sent as HTTP Basic; without a key
    nothing is, as with services on this machine that want none.
    """

    vendor: str
    base_url: str
    key: Secret | None
    clock: Clock
    timeout: float
    user_agent: str
    header: str = "authorization"
    prefix: str = "Bearer "
    user: str = ""
    concurrency: int = 4
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    rng: random.Random | None = None
    max_body: int = MAX_BODY
    policy: Policy | None = None
    """What everything goes through; a policy of its own when None."""
    dialect: str = ""
    """Whose error bodies it speaks (see `services.resilience.bodies`); empty for those of the vendor."""
    explain: Callable[[int, object], ServiceError | None] | None = None
    """The client's own reading of an error answer, by its status and parsed body; None for the usual one."""


class Http:
    """Requests to one connection. Belongs to one event loop; `aclose` ends it."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._base = normalize_base_url(options.base_url)
        parts = urlsplit(self._base)
        self.peer = Peer(options.vendor, parts.netloc, parts.scheme, options.dialect)
        self.stats = ClientStats()
        self._limiter = Limiter(options.concurrency, self.stats, options.sleep)
        policies = Policies(options.clock, sleep=options.sleep, rng=options.rng)
        self.policy = options.policy or policies.of(options.vendor)
        # For what is asked although the breaker is open.
        self._unguarded = policies.of("", breaker=BreakerOptions(failure_threshold=sys.maxsize))
        # One client, and so one connection, per request in flight. A pool of many connections looks at
        # each of them at every request, with system calls that cost more than the request itself.
        self._lanes: set[httpx.AsyncClient] = set()
        self._idle: list[httpx.AsyncClient] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._context: ssl.SSLContext | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        if not options.user and options.key is not None:
            _refuse_odd_key(options.key, self.peer)

    def __repr__(self) -> str:
        return f"Http({self._base})"

    async def json(
        self,
        call: Call,
        *,
        attempts: int | None = None,
        write: bool = False,
        idempotency_key: str | None = None,
        subject: Subject | None = None,
        insist: bool = False,
    ) -> Wire:
        """The answer as JSON; see `read`."""
        return await self.read(
            call,
            parse,
            attempts=attempts,
            write=write,
            idempotency_key=idempotency_key,
            subject=subject,
            insist=insist,
        )

    async def read(
        self,
        call: Call,
        parser: Callable[[str], T],
        *,
        attempts: int | None = None,
        write: bool = False,
        idempotency_key: str | None = None,
        subject: Subject | None = None,
        insist: bool = False,
    ) -> T:
        """The answer, read by `parser` (which gets the text and raises `ServiceError`).

        `attempts` bounds them below what the policy allows. `write` says that the request changes something:
        it is sent once, or, with an `idempotency_key` (sent as the header of that name), as often as a read.
        `subject`: whose rate limits it counts against. `insist`: ask at once, even if the breaker is open or
        all places are taken, as a test of a key or hanging up must; an answer then counts for it. Raises
        `ServiceError` only.
        """
        if idempotency_key:
            call = replace(call, headers={IDEMPOTENCY: idempotency_key, **(call.headers or {})})
        # One place in the queue for all attempts.
        ticket = self._limiter.ticket(urgent=insist)

        async def work(attempt: Attempt) -> T:
            if attempt.number > 1:
                self.stats.retries += 1
            return await self._once(call, parser, ticket, attempt)

        async def through(policy: Policy) -> T:
            return await policy.run(
                work, subject=subject, write=write, idempotency_key=idempotency_key, attempts=attempts
            )

        breaker, waited = self.policy.breaker, 0.0
        while True:
            if not insist:
                waited = await self._outcome(waited)
            try:
                return await through(self.policy)
            except ServiceError as error:
                if error.code != "breaker_open":
                    raise
                refusal = error
            if insist:
                value = await through(self._unguarded)
                await breaker.proved()
                return value
            if breaker.view().state is not BreakerState.HALF_OPEN or waited >= self._options.timeout:
                raise refusal

    async def _outcome(self, waited: float) -> float:
        """Let a call that is just trying whether all is well again come to its end first.

        Without this only one of the requests of a sync would get through after an outage. Returns the
        seconds waited so far, at most those of one attempt and a bit.
        """
        glance = _FIRST_GLANCE
        breaker = self.policy.breaker
        while waited < self._options.timeout:
            view = breaker.view()
            if view.state is not BreakerState.HALF_OPEN or not view.probing:
                break
            await self._options.sleep(glance)
            await breaker.refresh()
            waited += glance
            glance = min(glance * 1.5, _LONGEST_GLANCE)
        return waited

    async def aclose(self) -> None:
        self._closed = True
        await self._limiter.aclose()
        lanes, self._lanes, self._idle = self._lanes, set(), []
        for client in lanes:
            await client.aclose()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _give_up(self, client: httpx.AsyncClient) -> None:
        """Close a lane whose exchange broke off, by a failure or a cancel; the next request gets a new one.

        A pool of which a request was cancelled at the wrong moment counts its connection as busy for ever.
        """
        if client in self._lanes:
            self._lanes.discard(client)
            task = asyncio.create_task(client.aclose())
            self._leaving.add(task)
            task.add_done_callback(self._left)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a connection to %s could not be closed: %s", self.peer, type(error).__name__)

    async def _once(self, call: Call, parser: Callable[[str], T], ticket: int, attempt: Attempt) -> T:
        context = await self._trusted()
        asked = self._options.clock.monotonic()
        async with self._limiter.slot(ticket) as slot:
            # The wait for a place is this program's doing: it does not count against the retry budget.
            attempt.queued = self._options.clock.monotonic() - asked
            self.stats.requests += 1
            client = self._idle.pop() if self._idle else self._lane(context)
            try:
                answer = await self._exchange(client, call)
            except BaseException:
                self._give_up(client)
                raise
            if client in self._lanes:
                self._idle.append(client)
            self._learn(slot, answer)
        return await self._understand(answer, parser)

    async def _exchange(self, client: httpx.AsyncClient, call: Call) -> _Answer:
        """Sends one request and reads its whole body, within the time and size an attempt may have."""
        params = {name: value for name, value in (call.params or {}).items() if value is not None}
        # Whoever asked with less time than that is answered before it is over: then it counts as a failure
        # of what was asked, which a cancelled request does not.
        limit = min(self._options.timeout, OF_TIME_LEFT * time_left())
        try:
            async with asyncio.timeout(limit):
                async with client.stream(
                    call.method,
                    self._base + call.path,
                    params=params or None,
                    json=call.body,
                    data=call.form,
                    files=call.files,
                    content=call.content,
                    headers=call.headers,
                ) as response:
                    body = await self._body(response)
                    return _Answer(response.status_code, response.headers, body)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, TimeoutError) as exc:
            usual = limit == self._options.timeout
            failure = failures.from_transport(self.peer, exc, limit, by_setting=usual)
            log.debug("%s %s: %s (%s)", call.method, call.path, failure.message, type(exc).__name__)
        # Raised here, so that no vendor library's exception (which holds the request) hangs on it.
        raise failure

    async def _body(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._options.max_body:
                raise ServiceError(
                    f"{self.peer} sent an answer of more than {self._options.max_body // 1048576} MB",
                    advice="Check that the base URL is this vendor's API",
                    code="too_large",
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _learn(self, slot: Slot, answer: _Answer) -> None:
        rates = read_rates(answer.headers)
        if rates:
            self.policy.rates = rates
        if answer.status == 429:
            wait = failures.retry_after(answer.headers, self._options.clock.now()) or 0.0
            hold = wait if wait <= LONGEST_HOLD else 0.0
            self.stats.held_until = max(self.stats.held_until, self._options.clock.monotonic() + hold)
            self._limiter.throttled(slot, hold)
        elif answer.status < 400:
            self._limiter.succeeded()

    async def _understand(self, answer: _Answer, parser: Callable[[str], T]) -> T:
        page_says_it = answer.status < 300 or 400 <= answer.status < 500
        if page_says_it and answer.status not in (408, 429) and answer.looks_like_html():
            raise failures.web_page(self.peer, answer.status)
        if not 200 <= answer.status < 300:
            explain = self._options.explain
            own = explain(answer.status, self._error_data(answer)) if explain is not None else None
            if own is not None:
                raise own
            raise failures.from_status(
                self.peer, answer.status, answer.headers, self._error_data(answer), self._options.clock.now()
            )
        if len(answer.body) > INLINE_JSON:
            return await asyncio.to_thread(self._parsed, answer, parser)
        return self._parsed(answer, parser)

    def _parsed(self, answer: _Answer, parser: Callable[[str], T]) -> T:
        failure: ServiceError
        try:
            return parser(answer.body.decode("utf-8-sig"))
        except UnicodeDecodeError:
            failure = NotJson("It is not UTF-8 text", truncated=False)
        except ServiceError as exc:
            failure = exc
        why = failure.message[:1].lower() + failure.message[1:]
        raise ServiceError(
            f"{self.peer} sent an answer that cannot be used: {why}",
            category=failure.category,
            advice=failure.advice,
            code=failure.code,
        )

    def _error_data(self, answer: _Answer) -> object:
        """The body of an error answer, parsed if it is JSON; a key repeated there is masked."""
        if answer.looks_like_html():
            return None
        text = answer.body[: INLINE_JSON * 4].decode("utf-8", "replace")
        key = self._options.key.reveal() if self._options.key else ""
        text = text.replace(key, "…") if key else text
        try:
            return parse(text).data
        except ServiceError:
            return text[:2000]

    async def _trusted(self) -> ssl.SSLContext:
        """The certificates to trust, read once and off the loop."""
        if self._closed:
            raise closed()
        if self._context is None:
            async with self._opening:
                if self._context is None:
                    self._context = await self._read_certificates()
        return self._context

    async def _read_certificates(self) -> ssl.SSLContext:
        if self._local:
            # Nothing is trusted: plain http is for this machine only and redirects are not followed.
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return await asyncio.to_thread(
            _trust, os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", "")
        )

    @property
    def _local(self) -> bool:
        return self.peer.scheme == "http"

    def _lane(self, context: ssl.SSLContext) -> httpx.AsyncClient:
        options = self._options
        client = httpx.AsyncClient(
            auth=KeyHeader(options),
            headers={"user-agent": options.user_agent, "accept": "application/json"},
            timeout=httpx.Timeout(options.timeout, connect=min(CONNECT_TIMEOUT, options.timeout), pool=None),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            follow_redirects=False,
            verify=context,
            # Proxies and certificate files of the environment count, except towards this machine.
            trust_env=not self._local,
        )
        self._lanes.add(client)
        return client


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def looks_like_html(self) -> bool:
        kind = self.headers.get("content-type", "").lower()
        start = self.body[:256].lstrip().lower()
        return start.startswith((b"<!doctype html", b"<html")) or ("html" in kind and start[:1] == b"<")


@functools.lru_cache(maxsize=4)
def _trust(cert_file: str, cert_dir: str) -> ssl.SSLContext:
    """The trusted certificates (by SSL_CERT_FILE or SSL_CERT_DIR if set). Takes tens of milliseconds."""
    return httpx.create_ssl_context(trust_env=True)


def _refuse_odd_key(key: Secret, peer: Peer) -> None:
    value = key.reveal()
    if not value or any(not 33 <= ord(char) <= 126 for char in value):
        raise ServiceError(
            f"The key for {peer.vendor} is empty or holds characters that no key has",
            category=Category.AUTHENTICATION,
            advice="Copy the key again, without spaces, quotes or line ends",
            code="wrong_key",
        )


def segment(value: str, what: str) -> str:
    """A vendor's id as one path segment. Raises `ServiceError` for one that cannot be an id."""
    if not value or value in (".", "..") or len(value) > 512:
        raise ServiceError(
            f"An empty or impossible id of {what} cannot be asked for",
            advice="Check the reference in the agent's configuration",
            code="not_found",
        )
    return quote(value, safe="")
