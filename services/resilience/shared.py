"""Limits and breakers that several processes share, in Redis. Importing this does not import its client.

Nothing here makes a call wait or fail: what Redis does not answer in a quarter of a second is answered by
this process alone and marked degraded, and as long as Redis is away nobody asks it. A task of the store looks
for it meanwhile; once it is back it is used again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import random
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import count
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from services.clock import Clock, SystemClock
from services.errors import Category, ServiceError, UsageError
from services.resilience import scripts
from services.resilience.breaker import (
    BreakerOptions,
    BreakerState,
    BreakerView,
    Outcome,
    Permit,
    Refusal,
)
from services.resilience.limits import (
    Budget,
    Decision,
    Level,
    LevelLimits,
    Limit,
    MemoryWindows,
    Subject,
)
from services.resilience.retry import Sleep
from services.security import Secret, remember_secret

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger(__name__)

_PATIENCE: Final = 0.25
_PROBE_PATIENCE: Final = 2.0
_STEADY: Final = 30.0
"""Seconds it has to have been there before a loss is looked into quickly again."""
_CONNECTIONS: Final = 16
_DAY_MS: Final = 86_400_000
_LONGEST_WORD: Final = 120


class SharedStore:
    """One Redis for this process. Belongs to one event loop; connects when first asked.

    `prefix` keeps installations apart that use the same Redis. `patience`: seconds one question may take.
    `first_wait`, `longest_wait`: seconds between two looks for a lost Redis, doubling from one to the other;
    one that is lost again and again is not looked for more often.
    """

    def __init__(
        self,
        url: str,
        clock: Clock | None = None,
        *,
        prefix: str = "callboard",
        patience: float = _PATIENCE,
        first_wait: float = 0.1,
        longest_wait: float = 5.0,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        """Raises `UsageError` for an address that cannot be one."""
        self.place = _place(url)
        """Where it is, for people: host and port, or the path of the socket."""
        self.prefix = prefix
        self.lost_since: int | None = None
        """Epoch milliseconds; None while it answers, or was not asked yet."""
        self.lost_reason = ""
        self._url = Secret(url)
        if password := urlsplit(url).password:
            remember_secret(unquote(password))
        self._clock = clock or SystemClock()
        self._patience = patience
        self._waits = (first_wait, longest_wait)
        self._wait = first_wait
        self._found_at = -math.inf
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._client: Any = None  # its methods are only partly typed
        self._connecting = asyncio.Lock()
        self._slots = asyncio.Semaphore(_CONNECTIONS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._search: asyncio.Task[None] | None = None
        self._closed = False
        self._digests: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"SharedStore({self.place})"

    @property
    def available(self) -> bool:
        """Whether it answered when last asked; true before the first question."""
        return self.lost_since is None and not self._closed

    def windows(self, spare: MemoryWindows) -> RedisWindows:
        """Rate limits counted there, and in `spare` while it is lost."""
        return RedisWindows(self, spare)

    def breakers(self) -> RedisBreakers:
        """Breakers kept there."""
        return RedisBreakers(self)

    async def ask(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        """What the script answers. Raises `ServiceError` (`store_lost`) when the store does not in time.

        Whoever is cancelled meanwhile leaves the question to be answered: it is never torn off half said.
        """
        return await asyncio.shield(self.start(script, keys, arguments))

    def start(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> asyncio.Task[Any]:
        """`ask`, in a task that the store owns and that its closing waits for. Raises while it is lost."""
        if not self.available:
            raise self._error()
        task = asyncio.create_task(self._answer(script, keys, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def check(self) -> float:
        """Ask it now, even while it counts as lost: the milliseconds it took. Raises `ServiceError`."""
        await self._connected()
        started = self._clock.monotonic()
        await self._probe()
        return (self._clock.monotonic() - started) * 1000

    async def aclose(self) -> None:
        """Let what was asked be answered, then disconnect. From then on it counts as lost."""
        self._closed = True
        if self._search is not None:
            self._search.cancel()
            await asyncio.gather(self._search, return_exceptions=True)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _answer(self, script: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        client = await self._connected()
        from redis.exceptions import NoScriptError

        digest = self._digests.get(script)
        if digest is None:
            digest = self._digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        words = (len(keys), *keys, *arguments)
        try:
            # The wait for a connection is this process's doing and does not count; if Redis is slow,
            # the first in line find out, and nobody behind them asks.
            async with self._slots:
                if self.available:
                    async with asyncio.timeout(self._patience):
                        try:
                            return await client.execute_command("EVALSHA", digest, *words)
                        except NoScriptError:
                            return await client.execute_command("EVAL", script, *words)
        except Exception as error:  # whatever it is, no call may fail because of it
            self._lose(_reason(error, self._patience))
        raise self._error()  # out here, so that no error of the client hangs on it

    async def _connected(self) -> Any:
        """The client; importing it takes a quarter of a second, which happens once and off the loop."""
        if self._client is None:
            async with self._connecting:
                if self._closed:
                    raise self._error()
                if self._client is None:
                    await asyncio.to_thread(import_module, "redis.asyncio")
                    try:
                        self._client = _client(self._url.reveal())
                    except ValueError:
                        self._lose("has an address with a part that is not understood")
        if self._client is None:
            raise self._error()
        return self._client

    def _lose(self, reason: str) -> None:
        self.lost_reason = reason
        if self.lost_since is not None or self._closed:
            return
        self.lost_since = self._clock.now()
        if self._clock.monotonic() - self._found_at > _STEADY:
            self._wait = self._waits[0]
        log.warning("Redis at %s %s: this process counts for itself", self.place, reason)
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._find_again())

    async def _find_again(self) -> None:
        while self.lost_since is not None:
            # Several processes that lost it together do not come back in step.
            await self._sleep(self._wait * self._rng.uniform(0.5, 1.0))
            self._wait = min(self._wait * 2, self._waits[1])
            with suppress(ServiceError):
                await self._probe()

    async def _probe(self) -> None:
        """Whether it takes writes by script, as all of this needs; it counts as found or lost accordingly."""
        client = await self._connected()
        patience = _PROBE_PATIENCE
        try:
            # At first it may take longer, to connect; then it has to be as quick as every call needs it.
            for patience in (_PROBE_PATIENCE, self._patience):
                async with asyncio.timeout(patience):
                    await client.execute_command("EVAL", scripts.PROBE, 1, f"{self.prefix}:probe")
        except Exception as error:
            self._lose(_reason(error, patience))
        else:
            if self.lost_since is not None:
                log.info("Redis at %s is used again", self.place)
                self._found_at = self._clock.monotonic()
            self.lost_since, self.lost_reason = None, ""
            return
        raise self._error()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has it; nobody else needs to hear of it

    def _error(self) -> ServiceError:
        why = "is not used any more" if self._closed else self.lost_reason or "was lost"
        return ServiceError(
            f"Redis at {self.place} {why}",
            category=Category.TRANSIENT,
            advice="Start it, or correct its address in the settings; each process counts for itself so far",
            code="store_lost",
        )


class RedisWindows:
    """Rate limits counted in Redis: one script checks all levels and takes from all of them or from none.

    What is granted there is noted in `spare` too, so that this process, left alone, knows what it used up.
    """

    def __init__(self, store: SharedStore, spare: MemoryWindows) -> None:
        self._store = store
        self._spare = spare
        self._longest = 0.0

    async def take(self, subject: Subject, limits: LevelLimits) -> Decision:
        asked = self._asked(subject, limits)
        if not asked:
            return Decision(True)
        self._longest = max(self._longest, *(windows[-1][2] for _, _, windows in asked))
        try:
            answer = await self._store.ask(
                scripts.TAKE, [key for _, key, _ in asked], [_us(self._longest), *_arguments(asked)]
            )
        except ServiceError:
            return self._spare.take_now(subject, limits)._replace(degraded=True)
        allowed, place, window, remaining, wait = map(int, answer)
        if allowed:
            self._spare.note(subject, limits)
        level, _, windows = asked[place - 1]
        return Decision(bool(allowed), level, windows[window - 1][1], remaining, wait / 1e6)

    async def budgets(self, subject: Subject, limits: LevelLimits) -> list[Budget]:
        asked = self._asked(subject, limits)
        if not asked:
            return []
        try:
            answer = await self._store.ask(
                scripts.BUDGETS, [key for _, key, _ in asked], list(_arguments(asked))
            )
        except ServiceError:
            return self._spare.budgets_now(subject, limits, degraded=True)
        figures = iter(map(int, answer))
        return [
            Budget(level, window, limit, next(figures), next(figures) / 1e6)
            for level, _, windows in asked
            for _, window, _, limit in windows
        ]

    def busiest(self, account: str, limits: LevelLimits) -> Subject:
        """Among those that this process asked for; what others asked counts for how much they have left."""
        return self._spare.busiest(account, limits)

    def _asked(self, subject: Subject, limits: LevelLimits) -> list[tuple[Level, str, tuple[Limit, ...]]]:
        """Level, key and windows of what is limited. All keys of one account are in one slot of a cluster."""
        tag = f"{self._store.prefix}:limit:{{{_word(subject.account) or '-'}}}"
        found = []
        for level, wanted in limits:
            name = getattr(subject, level)
            if name and wanted.limited:
                # Users may be telephone numbers: nobody has to read them there.
                word = "" if level is Level.ACCOUNT else _digest(name) if level is Level.USER else _word(name)
                found.append((level, f"{tag}:{level}:{word}", wanted.limited))
        return found


class RedisBreakers:
    """Breakers kept in Redis, with the algorithm of `Machine`.

    A half-open place is a lease: it is free again after `probe_seconds`, whatever became of its process.
    """

    def __init__(self, store: SharedStore) -> None:
        self._store = store
        self._process = secrets.token_hex(8)
        self._places = count(1)

    async def admit(self, name: str, options: BreakerOptions) -> tuple[Permit | Refusal, BreakerView]:
        place = f"{self._process}.{next(self._places)}"
        task = self._start(name, options, "admit", place=place)
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            # The place may be taken all the same: it is given back once that is known.
            task.add_done_callback(lambda done: self._give_back(name, options, place, done))
            raise
        return _leave(answer, place), _view(answer)

    async def report(
        self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome
    ) -> BreakerView:
        task = self._start(name, options, outcome.value, permit.generation, permit.probe)
        return _view(await asyncio.shield(task))

    def report_later(self, name: str, options: BreakerOptions, permit: Permit, outcome: Outcome) -> None:
        with suppress(ServiceError):  # lost: the lease ends by itself
            self._start(name, options, outcome.value, permit.generation, permit.probe)

    async def view(self, name: str, options: BreakerOptions) -> BreakerView:
        return _view(await asyncio.shield(self._start(name, options, "view")))

    async def prove(self, name: str, options: BreakerOptions) -> BreakerView:
        return _view(await asyncio.shield(self._start(name, options, "prove")))

    async def force(self, name: str, options: BreakerOptions, *, open_it: bool) -> BreakerView:
        return _view(await asyncio.shield(self._start(name, options, "trip" if open_it else "reset")))

    def _start(
        self, name: str, options: BreakerOptions, what: str, generation: int = 0, place: str = ""
    ) -> asyncio.Task[list[Any]]:
        key = f"{self._store.prefix}:breaker:{{{_word(name)}}}"
        keep = _DAY_MS + round((options.open_seconds + options.probe_seconds) * 1000)
        arguments = (
            what,
            generation,
            place,
            options.failure_threshold,
            _us(options.open_seconds),
            options.success_threshold,
            options.half_open_concurrency,
            _us(options.probe_seconds),
            keep,
        )
        return self._store.start(scripts.BREAKER, (key, f"{key}:trying"), arguments)

    def _give_back(
        self, name: str, options: BreakerOptions, place: str, done: asyncio.Task[list[Any]]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        permit = _leave(done.result(), place)
        if isinstance(permit, Permit) and permit.probe:
            self.report_later(name, options, permit, Outcome.RELEASED)


def _leave(answer: list[Any], place: str) -> Permit | Refusal:
    word, wait, state, generation = answer[0], int(answer[1]), answer[2], int(answer[5])
    if word != "yes":
        return Refusal(wait / 1e6, trying=word == "trying")
    return Permit(generation, place if state == BreakerState.HALF_OPEN else "", shared=True)


def _view(answer: list[Any]) -> BreakerView:
    failures, successes, _, trying, left = map(int, answer[3:8])
    return BreakerView(BreakerState(answer[2]), failures, successes, trying, left / 1e6, shared=True)


def _arguments(asked: Sequence[tuple[Level, str, tuple[Limit, ...]]]) -> Iterator[int]:
    """Number of windows, then length in microseconds and limit of each, for every key."""
    for _, _, windows in asked:
        yield len(windows)
        for _, _, length, limit in windows:
            yield _us(length)
            yield limit


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _word(name: str) -> str:
    """A name as a part of a key: readable, without what Redis gives a meaning to, and not endless."""
    word = quote(name, safe="")
    return word if len(word) <= _LONGEST_WORD else _digest(name)


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _place(url: str) -> str:
    """Host and port, or the path of a socket. Raises `UsageError`, which never repeats the address."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return parts.path
        if parts.scheme in ("redis", "rediss"):
            host = parts.hostname or "localhost"
            return f"[{host}]:{parts.port or 6379}" if ":" in host else f"{host}:{parts.port or 6379}"
    except ValueError:
        pass
    raise UsageError(
        "The address of Redis is none",
        advice="Write it as redis://host:6379/0, rediss://… for TLS, or unix:///path/to/its.sock",
        code="wrong_url",
    )


def _client(url: str) -> Redis:
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return Redis.from_url(
        url,
        decode_responses=True,
        protocol=2,
        socket_connect_timeout=_PROBE_PATIENCE,
        socket_timeout=_PROBE_PATIENCE,
        # Once more at once, for a connection that was closed while it was idle.
        retry=Retry(NoBackoff(), 1),
        client_name="callboard",
        driver_info=None,
    )


def _reason(error: Exception, patience: float) -> str:
    """Why Redis is lost, to follow its name; in our words, since the client's may hold the address."""
    from redis import exceptions

    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return f"did not answer within {patience * 1000:.0f} ms"
    if isinstance(error, exceptions.AuthenticationError | exceptions.AuthorizationError):
        return "refuses the user or the password in its address"
    if isinstance(error, exceptions.BusyLoadingError):
        return "is still loading its data"
    if isinstance(error, exceptions.ReadOnlyError):
        return "is a replica that takes no writes"
    if isinstance(error, exceptions.NoPermissionError):
        return "does not allow its user to run scripts"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "has no memory left"
    if isinstance(error, exceptions.ResponseError):
        word = str(error).partition(" ")[0]
        return f"refused the question ({word})" if word.isupper() else "refused the question"
    if isinstance(error, OSError | exceptions.ConnectionError):
        return "cannot be reached"
    log.debug("asking Redis failed: %s", type(error).__name__)
    return "cannot be used"
