"""A conversation with nobody: it plays a scenario, and reacts to what is typed or spoken.

No network. With the same scenario, seed and turns of the user the messages are the same, to the millisecond
of an injected clock and sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from services.calls.messages import (
    AgentCorrected,
    AgentSpeaking,
    AgentSpeech,
    ApprovalWanted,
    Connected,
    Cost,
    Interrupted,
    Message,
    Notice,
    Quality,
    StateChanged,
    ToolEnded,
    ToolStarted,
    UserSpeaking,
    UserSpeech,
    VendorLatency,
)
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.scenario.drawing import Draws, fill, result_text, spoken, words
from services.calls.scenario.model import (
    AgentStep,
    CostStep,
    EndStep,
    FailStep,
    LatencyStep,
    ListenStep,
    NoticeStep,
    PauseStep,
    QualityFigures,
    QualityStep,
    Scenario,
    StateStep,
    Step,
    ToolStep,
    UserStep,
)
from services.calls.scenario.speaking import aloud, written
from services.calls.scenario.voice import Ears, Voice
from services.calls.transport import AgentAudio, Transport
from services.clock import Clock
from services.errors import Category, ServiceError

Sleep: TypeAlias = Callable[[float], Awaitable[None]]

_SPOKEN = "(spoken)"
_ENDS = {
    "agent": (EndReason.AGENT_ENDED, "agent"),
    "callee": (EndReason.CALLEE_ENDED, "callee"),
    "completed": (EndReason.COMPLETED, "us"),
    "max_duration": (EndReason.MAX_DURATION, "vendor"),
}


class _Over(Exception):
    """The scenario ended the call."""


class MockTransport(Transport):
    """Plays one scenario."""

    kind = TransportKind.MOCK

    def __init__(
        self,
        scenario: Scenario,
        *,
        clock: Clock,
        seed: int = 0,
        audio: bool | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`seed` is added to the scenario's own; `audio` overrides whether the agent has a voice."""
        super().__init__()
        aloud = scenario.audio != "none" if audio is None else audio
        self.capabilities = Capabilities(audio=aloud, text=True, context=True, approvals=True, simulated=True)
        self._scenario = scenario
        self._clock = clock
        self._sleep = sleep
        self._seed = (scenario.seed, seed)
        self._draws = Draws(*self._seed)
        self._voice = Voice(scenario) if aloud else None
        self._ears: Ears | None = None
        self._heard = deque(scenario.heard)
        self._variables: dict[str, object] = dict(scenario.variables)
        self._first_message = ""
        self._result: object = ""
        self._event_id = 0
        self._tool_count = 0
        self._turns: deque[str] = deque()
        self._arrivals = 0
        """How often the user began something: it cuts what the agent says just then."""
        self._news_of_user = asyncio.Event()
        self._answered: dict[str, asyncio.Future[tuple[str, bool]]] = {}
        self._used: set[int] = set()
        self._fallbacks = 0
        self._live_at: float | None = None
        self._rest: tuple[Step, ...] = ()

    # -- the operator's side ----------------------------------------------------------------------

    async def send_text(self, text: str) -> None:
        if not self.over and text.strip():
            self._turns.append(text.strip())
            self._arrivals += 1
            self._news_of_user.set()

    async def send_audio(self, pcm: bytes) -> None:
        if self._voice is None:
            raise self._not_offered("audio")
        if self.over or self._ears is None:
            return
        for begun in self._ears.hear(pcm):
            if begun:
                self._arrivals += 1
            else:
                text = self._heard.popleft() if self._heard else _SPOKEN
                self._emit(UserSpeech(text))
                self._turns.append(text)
            self._news_of_user.set()

    async def send_context(self, text: str) -> None:
        """A mock has nothing to tell it to."""

    async def send_tool_result(self, tool_id: str, result: str, ok: bool) -> None:
        self._settle(tool_id, (result, ok))

    async def approve(self, tool_id: str, approved: bool) -> None:
        self._settle(tool_id, ("", approved))

    async def aftermath(self) -> list[Message]:
        plan = self._scenario.cost
        if plan is None or self._live_at is None:
            return []
        return [Cost(self._spent(), plan.currency, final=True)]

    def _settle(self, tool_id: str, answer: tuple[str, bool]) -> None:
        waiting = self._answered.get(tool_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # -- the course of the call -------------------------------------------------------------------

    async def _open(self, brief: Brief) -> None:
        scenario = self._scenario
        self._variables.update(brief.variables)
        self._first_message = brief.first_message
        self._emit(StateChanged(CallState.CONNECTING))
        if self._voice is not None:
            await self._voice.prepare()
            self._ears = await asyncio.to_thread(Ears, scenario.rate)
        await self._pause(self._draws.ms(scenario.connecting))
        refuse = scenario.refuse
        if refuse is not None:
            raise ServiceError(
                refuse.message, category=Category(refuse.category), advice=refuse.advice, code=refuse.code
            )
        self._own(self._play(), "course")

    async def _play(self) -> None:
        scenario = self._scenario
        with contextlib.suppress(_Over):
            for state in scenario.states:
                await self._do(state)
            rate = scenario.rate if self._voice is not None else 0
            form = f"pcm_{rate}" if rate else ""
            self._emit(Connected(self._draws.id("mock"), rate, rate, form, form))
            self._emit(StateChanged(CallState.LIVE))
            self._live_at = self._clock.monotonic()
            if scenario.quality is not None:
                self._own(self._measure(), "quality")
            if scenario.max_duration:
                self._own(self._limit(scenario.max_duration), "limit")
            await self._run(self._with_first_message())
            if scenario.answers:
                await self._do(ListenStep(listen=True))
            self._end(EndReason.COMPLETED, by="us")

    def _with_first_message(self) -> list[Step]:
        """The steps, the brief's first message in the place of the agent's own greeting."""
        steps = list(self._scenario.steps)
        if not self._first_message:
            return steps
        said = {"agent": [self._first_message]}
        if steps and isinstance(steps[0], AgentStep):
            return [steps[0].model_copy(update=said), *steps[1:]]
        return [AgentStep.model_validate(said), *steps]

    async def _run(self, steps: list[Step]) -> None:
        for step in steps:
            await self._do(step)

    async def _do(self, step: Step) -> None:
        if self.over:
            raise _Over
        await self._room()
        match step:
            case AgentStep():
                await self._agent(step)
            case UserStep():
                await self._user(step)
            case ListenStep():
                await self._listen(step)
            case ToolStep():
                await self._tool(step)
            case StateStep():
                await self._state(step)
            case PauseStep():
                await self._pause(self._draws.ms(step.pause))
            case QualityStep():
                self._emit(_quality(self._draws, step.quality))
            case LatencyStep():
                self._emit(VendorLatency(self._draws.figures(step.latency), self._event_id or None))
            case CostStep():
                self._emit(Cost(step.cost, step.currency or self._currency(), step.final))
            case NoticeStep():
                self._emit(Notice(self._fill(step.notice), step.level, step.advice))
            case EndStep():
                await self._pause(self._draws.ms(step.delay))
                reason, by = _ENDS[step.end]
                self._hang_up(reason, step.detail, by)
            case FailStep():
                await self._pause(self._draws.ms(step.delay))
                self._hang_up(EndReason(step.fail), step.detail, "vendor", step.code)

    def _hang_up(self, reason: EndReason, detail: str, by: str, code: int | None = None) -> None:
        self._end(reason, detail, by=by, code=code)
        raise _Over

    async def _state(self, step: StateStep) -> None:
        self._emit(StateChanged(CallState(step.state), step.detail))
        lasts = self._draws.ms(step.lasts)
        await self._pause(lasts)
        if step.state == "reconnecting" and lasts:
            self._emit(StateChanged(CallState.LIVE))

    # -- the agent --------------------------------------------------------------------------------

    async def _agent(self, step: AgentStep) -> None:
        text = self._fill(self._draws.choice(step.agent))
        figures = self._draws.figures(self._scenario.latency)
        if step.delay is not None:
            delay = self._draws.ms(step.delay)
        else:
            delay = sum(figures.values()) or self._draws.ms(self._scenario.think)
        await self._pause(delay)
        self._event_id += 1
        cut = await self._say(step, text, figures)
        if cut is not None:
            event_id = self._event_id
            self._emit(Interrupted(event_id))
            self._speaks(False)
            self._emit(AgentCorrected(text, spoken(text, cut), event_id))
            if step.interrupted is not None and not self._turns and not self._user_is_speaking:
                await self._simulated(step.interrupted.user, stream=False)
        else:
            self._speaks(False)
        if self._scenario.cost is not None:
            self._emit(Cost(self._spent(), self._currency()))

    async def _say(self, step: AgentStep, text: str, figures: dict[str, float]) -> int | None:
        """Say it; the number of words that were heard before the user cut in, None when nobody did."""
        event_id, total = self._event_id, len(words(text))
        pieces = self._draws.pieces(text) if step.stream else [(text, total)]
        if self._voice is not None:
            beats = aloud(pieces, await self._voice.say(text, step.wav), self._scenario.rate)
        else:
            word_ms = step.word_ms if step.word_ms is not None else self._scenario.word_ms
            beats = written(pieces, word_ms)
            self._emit(AgentSpeaking(True, event_id))
        may_cut = self._scenario.interruptible if step.interruptible is None else step.interruptible
        since = self._arrivals
        stop = step.interrupted.word if step.interrupted is not None else total
        shown = 0
        for index, beat in enumerate(beats):
            for so_far in beat.texts:
                shown += 1
                final = shown == len(pieces)
                self._emit(AgentSpeech(text if final else so_far.rstrip(), final=final, event_id=event_id))
            if beat.pcm:
                await self._room()
                self._emit(AgentAudio(beat.pcm, event_id))
            if index == 0 and figures:
                self._emit(VendorLatency(figures, event_id))
            broken = await self._cut_within(beat.wait_ms, since, may_cut)
            if self._voice is None and shown == len(pieces) and step.interrupted is None:
                if broken:
                    return None  # it can be read in full: nothing was cut off
            elif (broken or beat.said >= stop) and beat.said < total:
                return min(beat.said, stop)
        return None

    def _speaks(self, on: bool) -> None:
        """Without audio of ours nobody else can know when the agent is heard."""
        if self._voice is None:
            self._emit(AgentSpeaking(on, self._event_id))

    # -- the user ---------------------------------------------------------------------------------

    async def _user(self, step: UserStep) -> None:
        if await self._turn_within(step.wait):
            self._turns.popleft()
            return
        await self._pause(self._draws.ms(step.delay))
        await self._simulated(self._fill(step.user), stream=step.stream)

    async def _simulated(self, text: str, *, stream: bool) -> None:
        """The user, played by the mock; its sound is nowhere."""
        if self._voice is None:
            self._emit(UserSpeaking(True))
        pieces = self._draws.pieces(text)
        so_far = ""
        for index, (piece, count) in enumerate(pieces):
            so_far += piece
            await self._pause(count * self._scenario.word_ms)
            if stream and index < len(pieces) - 1:
                self._emit(UserSpeech(so_far.rstrip(), final=False))
        if self._voice is None:
            self._emit(UserSpeaking(False))
        self._emit(UserSpeech(text))

    async def _listen(self, step: ListenStep) -> None:
        until = re.compile(step.listen, re.IGNORECASE) if isinstance(step.listen, str) else None
        while await self._turn_within(step.silence or None):
            text = self._turns.popleft()
            if until is not None and until.search(text):
                return
            await self._answer(text)
            if self.over:
                raise _Over

    async def _answer(self, text: str) -> None:
        for index, answer in enumerate(self._scenario.answers):
            if answer.once and index in self._used:
                continue
            found = re.search(answer.when, text, re.IGNORECASE)
            if found is not None:
                self._used.add(index)
                self._variables.update({k: v for k, v in found.groupdict().items() if v is not None})
                await self._run(answer.steps)
                return
        fallbacks = self._scenario.fallback
        if fallbacks:
            said = fallbacks[self._fallbacks % len(fallbacks)]
            self._fallbacks += 1
            await self._agent(AgentStep(agent=[said]))

    @property
    def _user_is_speaking(self) -> bool:
        return self._ears is not None and self._ears.speaking

    async def _turn_within(self, ms: float | None) -> bool:
        """Whether a turn of the user is there, waiting for one (None: for ever). Who speaks is let finish."""
        while not self._turns:
            if ms == 0 and not self._user_is_speaking:
                return False
            self._news_of_user.clear()
            limit = None if self._user_is_speaking else ms
            woken = await self._first(asyncio.ensure_future(self._news_of_user.wait()), limit)
            if not woken and not self._turns and not self._user_is_speaking:
                return False
        return True

    # -- tools ------------------------------------------------------------------------------------

    async def _tool(self, step: ToolStep) -> None:
        self._tool_count += 1
        tool_id = f"tool_{self._tool_count}"
        name, arguments = self._fill(step.tool), fill(step.arguments, self._variables, self._result)
        took = self._draws.ms(step.took)
        ok = step.ok
        if step.where == "client":
            self._emit(ToolStarted(tool_id, name, arguments, "client"))
            answer = await self._answer_of(tool_id, step.timeout)
            if answer is None:
                self._emit(Notice(f"No answer came from the client tool {name}", "look"))
            self._result, ok = answer or ("", False)
        elif step.approval and not await self._approved(tool_id, name, arguments, step.timeout):
            ok = False
            self._result = "refused"
            self._emit(ToolEnded(tool_id, "refused, or nobody answered in time", ok=False))
        else:
            self._emit(ToolStarted(tool_id, name, arguments, step.where))
            await self._pause(took)
            self._result = fill(step.result, self._variables, self._result)
            self._emit(ToolEnded(tool_id, result_text(self._result), ok, round(took)))
        if not ok:
            if step.failed:
                await self._agent(AgentStep(agent=[step.failed]))
            await self._run(step.on_failure)

    async def _approved(self, tool_id: str, name: str, arguments: dict[str, object], timeout: int) -> bool:
        self._emit(ApprovalWanted(tool_id, name, arguments, timeout))
        answer = await self._answer_of(tool_id, timeout)
        return answer is not None and answer[1]

    async def _answer_of(self, tool_id: str, timeout: int) -> tuple[str, bool] | None:
        waiting = self._answered[tool_id] = asyncio.get_running_loop().create_future()
        try:
            return waiting.result() if await self._first(waiting, timeout) else None
        finally:
            waiting.cancel()
            del self._answered[tool_id]

    # -- figures ----------------------------------------------------------------------------------

    async def _measure(self) -> None:
        plan = self._scenario.quality
        assert plan is not None  # noqa: S101  # started only with one
        draws = Draws(*self._seed, "quality")
        while not self.over:
            self._emit(_quality(draws, plan))
            await self._pause(plan.every)

    async def _limit(self, ms: int) -> None:
        await self._pause(ms)
        self._end(EndReason.MAX_DURATION, by="vendor")

    def _spent(self) -> float:
        plan = self._scenario.cost
        if plan is None or self._live_at is None:
            return 0.0
        return round(plan.per_minute * (self._clock.monotonic() - self._live_at) / 60, 4)

    def _currency(self) -> str:
        return self._scenario.cost.currency if self._scenario.cost is not None else "USD"

    # -- time -------------------------------------------------------------------------------------

    def _fill(self, text: str) -> str:
        return str(fill(text, self._variables, self._result))

    async def _pause(self, ms: float) -> None:
        if ms > 0:
            await self._sleep(ms / 1000)

    async def _cut_within(self, ms: float, since: int, may_cut: bool) -> bool:
        """Wait, unless the user begins something, or did since then, and may; whether that is so."""
        if not may_cut:
            await self._pause(ms)
            return False
        if self._arrivals == since and ms > 0:
            self._news_of_user.clear()
            await self._first(asyncio.ensure_future(self._news_of_user.wait()), ms)
        return self._arrivals != since

    async def _first(self, waiting: asyncio.Future[Any], ms: float | None) -> bool:
        """Whether it happens within the time; it is cancelled otherwise."""
        timer = asyncio.ensure_future(self._sleep(ms / 1000)) if ms is not None else None
        both: set[asyncio.Future[Any]] = {waiting} | ({timer} if timer is not None else set())
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return waiting.done()
        finally:
            left = [each for each in both if not each.done()]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def _quality(draws: Draws, figures: QualityFigures) -> Quality:
    return Quality(
        draws.ms(figures.round_trip) if figures.round_trip is not None else None,
        draws.ms(figures.jitter) if figures.jitter is not None else None,
        figures.loss,
    )
