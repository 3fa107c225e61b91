"""The calls of the simulated Retell account: what each is, what was said in it, who watches it.

Whoever runs a call (the web gateway, the simulated telephone) drives it through `RetellCalls`:

    call = calls.create(agent, call_type="web_call")     registered
    call.conductor = self                                gets stop, steer and take-over requests
    calls.begin(call)                                    ongoing: transcripts go out to watchers from here on
    item = calls.add(call, {"role": "user", "content": …})
    calls.change(call, item["id"], {"content": …})       an utterance grows, or is cut short
    calls.measure(call, e2e=812, llm=402, tts=180)       one answer's latencies, ms
    calls.end(call, "user_hangup")                       ended: figures are filled in, watchers are told

Times are epoch milliseconds; `time_sec` counts from the beginning of the call, as the vendor's monitor does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.clock import Clock
from services.simulator.retell_store import Versioned
from services.simulator.wire import Json

MAX_WATCHERS = 5
ANALYSIS_AFTER_MS = 1_500
"""The analysis is added this long after a call's end, as `call_analyzed` follows `call_ended`."""

CENTS_PER_MINUTE = {"elevenlabs_tts": 7.0, "gpt_4_1": 4.5, "twilio": 1.5}
UNSTORED = "basic_attributes_only"
"""The `data_storage_setting` whose transcripts nobody may read afterwards."""

NOT_CONNECTED = frozenset({
    "dial_busy", "dial_failed", "dial_no_answer", "invalid_destination", "telephony_provider_unavailable",
    "telephony_provider_permission_denied", "sip_routing_error", "user_declined", "registered_call_timeout",
    "error_user_not_joined",
})  # fmt: skip
"""Reasons of calls nobody was ever connected in."""

_SPOKEN = ("agent", "user", "transfer_target")
_FIGURES = ("asr", "e2e", "llm", "llm_websocket_network_rtt", "tts", "s2s", "knowledge_base")


class Conductor(Protocol):
    """Runs a call, and does what the live-call requests ask of it. None of these may block."""

    def stop(self, reason: str) -> None:
        """Hang up; the conductor then ends the call with `reason`."""

    def steer(self, context: str, respond: bool) -> None:
        """Take in `context`; with `respond` the agent speaks about it at once."""

    def take_over(self, participant_id: str) -> None:
        """The agent falls silent and leaves the line to a listener."""


class Watcher:
    """One monitor of a call: iterate over the frames; ends after `call_ended`."""

    def __init__(self, snapshot: Json) -> None:
        self._frames: asyncio.Queue[Json | None] = asyncio.Queue()
        self._frames.put_nowait(snapshot)

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Json:
        frame = await self._frames.get()
        if frame is None:
            raise StopAsyncIteration
        return frame

    def send(self, frame: Json | None) -> None:
        self._frames.put_nowait(frame)


@dataclass(eq=False, slots=True)
class RetellCall:
    """One call. Changed only through `RetellCalls`, except for `conductor`, `extra` and `listeners`."""

    id: str
    agent_id: str
    agent_version: int
    agent_name: str
    call_type: str
    created: int
    access_token: str = ""
    metadata: object = None
    variables: dict[str, str] = field(default_factory=dict)
    extra: Json = field(default_factory=dict)
    """Further fields of the vendor's object (`from_number`, `to_number`, `direction`, …)."""
    storage: str = "everything"
    status: str = "registered"
    started: int | None = None
    ended: int | None = None
    reason: str = ""
    items: list[Json] = field(default_factory=list)
    latencies: dict[str, list[float]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)
    conductor: Conductor | None = None
    listeners: dict[str, str] = field(default_factory=dict)
    """Participant id → access token of everybody who listens in."""
    watchers: list[Watcher] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return self.status == "ongoing"

    @property
    def over(self) -> bool:
        return self.status in ("ended", "error", "not_connected")


class RetellCalls:
    """Every call of the account, oldest first. Times come from `clock`, ids and tokens from the seed."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self._clock = clock
        self._rng = random.Random(f"{seed}/retell/calls")
        self._calls: dict[str, RetellCall] = {}
        self._items = 0

    def create(
        self,
        agent: Versioned,
        version: int | None = None,
        *,
        call_type: str = "web_call",
        metadata: object = None,
        variables: dict[str, str] | None = None,
        extra: Json | None = None,
    ) -> RetellCall:
        """A registered call of `agent` in `version` (None: the newest)."""
        number = agent.newest if version is None else version
        data = agent.versions[number].data
        call = RetellCall(
            id=f"call_{self._rng.getrandbits(140):035x}",
            agent_id=agent.id,
            agent_version=number,
            agent_name=str(data.get("agent_name") or ""),
            call_type=call_type,
            created=self._clock.now(),
            access_token=self.token() if call_type == "web_call" else "",
            metadata=metadata,
            variables=dict(variables or {}),
            extra=dict(extra or {}),
            storage=str(data.get("data_storage_setting") or "everything"),
        )
        self._calls[call.id] = call
        return call

    def token(self) -> str:
        """A new access token."""
        return f"tok_{self._rng.getrandbits(160):040x}"

    def get(self, call_id: str) -> RetellCall | None:
        return self._calls.get(call_id)

    def all(self) -> Sequence[RetellCall]:
        return list(self._calls.values())

    def forget(self, call_id: str) -> bool:
        """Delete a call that is over; False when there is none."""
        call = self._calls.get(call_id)
        if call is None or not call.over:
            return False
        del self._calls[call_id]
        return True

    def live_count(self) -> int:
        return sum(call.live for call in self._calls.values())

    # A call's course

    def begin(self, call: RetellCall) -> None:
        """The user is on the line."""
        if call.status == "registered":
            call.status, call.started = "ongoing", self._clock.now()

    def time_sec(self, call: RetellCall) -> float:
        """Seconds since the beginning of the call."""
        return 0.0 if call.started is None else round((self._clock.now() - call.started) / 1000, 3)

    def add(self, call: RetellCall, item: Json) -> Json:
        """Append `item` (`role` and what belongs to it); returns it with its `id` and `time_sec`."""
        self._items += 1
        whole = {"id": f"utt_{self._items:06d}", "time_sec": self.time_sec(call), **item}
        if whole["role"] in _SPOKEN and "words" not in whole:
            whole["words"] = words_of(str(whole["content"]), float(whole["time_sec"]))
        call.items.append(whole)
        self.tell(call, {"type": "transcript_updated", "transcripts": [whole]})
        return whole

    def change(self, call: RetellCall, item_id: str, patch: Json) -> None:
        """Lay `patch` over an item; watchers get the whole item again. Unknown ids are ignored."""
        for index, item in enumerate(call.items):
            if item["id"] == item_id:
                whole = {**item, **patch}
                if whole["role"] in _SPOKEN and "content" in patch and "words" not in patch:
                    whole["words"] = words_of(str(whole["content"]), float(whole["time_sec"]))
                call.items[index] = whole
                self.tell(call, {"type": "transcript_updated", "transcripts": [whole]})
                return

    def measure(self, call: RetellCall, **figures: float) -> None:
        """One answer's latencies in milliseconds: `e2e`, `llm`, `tts`, `asr`, ….

        Each answer also counts as one request to the model.
        """
        for name, value in figures.items():
            call.latencies.setdefault(name, []).append(round(float(value), 1))
        call.tokens.append(900 + 40 * len(call.items))

    def end(self, call: RetellCall, reason: str) -> None:
        """The call is over. `reason` is the vendor's `disconnection_reason`; a second end is ignored."""
        if call.over:
            return
        now = self._clock.now()
        call.reason, call.ended = reason, now
        if reason.startswith("error_"):
            call.status = "error"
        else:
            call.status = "not_connected" if reason in NOT_CONNECTED else "ended"
        self.tell(call, self.ended_frame(call))
        for watcher in call.watchers:
            watcher.send(None)
        call.watchers.clear()

    # Watchers

    @staticmethod
    def ended_frame(call: RetellCall) -> Json:
        """The last frame a watcher gets."""
        return {
            "type": "call_ended",
            "event_timestamp": call.ended,
            "disconnection_reason": call.reason,
        }

    def watch(self, call: RetellCall) -> Watcher:
        """A monitor of a live call; its first frame is the snapshot. End it with `unwatch`."""
        watcher = Watcher({
            "type": "transcript_snapshot",
            "transcripts": list(call.items),
            "pre_session_transcripts": [],
        })  # fmt: skip
        call.watchers.append(watcher)
        return watcher

    def unwatch(self, call: RetellCall, watcher: Watcher) -> None:
        if watcher in call.watchers:
            call.watchers.remove(watcher)
            watcher.send(None)

    def close(self) -> None:
        """The simulator stops: every watcher's iteration ends, without an end of its call."""
        for call in self._calls.values():
            for watcher in list(call.watchers):
                self.unwatch(call, watcher)

    def tell(self, call: RetellCall, frame: Json) -> None:
        """Send `frame` to everybody who watches the call."""
        for watcher in call.watchers:
            watcher.send(frame)

    # As the vendor shows them

    def summary(self, call: RetellCall) -> Json:
        """An item of `POST /v3/list-calls`: everything but what was said."""
        data: Json = {
            "call_id": call.id,
            "call_type": call.call_type,
            "agent_id": call.agent_id,
            "agent_version": call.agent_version,
            "agent_name": call.agent_name,
            "call_status": call.status,
            "retell_llm_dynamic_variables": call.variables,
            "collected_dynamic_variables": {},
            "data_storage_setting": call.storage,
            "opt_in_signed_url": False,
            **call.extra,
        }
        if call.metadata is not None:
            data["metadata"] = call.metadata
        if call.call_type == "web_call":
            data["access_token"] = call.access_token
        if call.started is not None:
            data["start_timestamp"] = call.started
        if call.over:
            data.update(self._figures(call))
        return data

    def detail(self, call: RetellCall) -> Json:
        """The answer to `GET /v2/get-call/…`."""
        data = self.summary(call)
        if call.storage == UNSTORED and call.over:
            return data
        spoken = [item for item in call.items if item["role"] in _SPOKEN]
        data["transcript"] = "".join(
            f"{str(item['role']).capitalize()}: {item['content']}\n" for item in spoken
        )
        data["transcript_object"] = [_stored(item) for item in spoken]
        data["transcript_with_tool_calls"] = [_stored(item) for item in call.items]
        return data

    def _figures(self, call: RetellCall) -> Json:
        data: Json = {"end_timestamp": call.ended, "disconnection_reason": call.reason}
        if call.started is None or call.ended is None:
            return data
        duration = call.ended - call.started
        data["duration_ms"] = duration
        data["call_cost"] = _cost(call, duration)
        data["latency"] = {
            name: _spread(call.latencies[name]) for name in _FIGURES if call.latencies.get(name)
        }
        if call.tokens:
            data["llm_token_usage"] = {
                "values": call.tokens,
                "average": round(sum(call.tokens) / len(call.tokens), 1),
                "num_requests": len(call.tokens),
            }
        if self._clock.now() >= call.ended + ANALYSIS_AFTER_MS:
            data["call_analysis"] = _analysis(call)
        return data


def words_of(text: str, start: float, seconds_a_word: float = 0.24) -> list[Json]:
    """Word times in seconds, evenly spaced from `start`."""
    return [
        {
            "word": word,
            "start": round(start + index * seconds_a_word, 3),
            "end": round(start + (index + 1) * seconds_a_word, 3),
        }
        for index, word in enumerate(text.split())
    ]


def _stored(item: Json) -> Json:
    """An item as a stored transcript has it: without its id, and mostly without its time."""
    hidden = ("id",) if item["role"] in ("sms", "injected") else ("id", "time_sec")
    return {name: value for name, value in item.items() if name not in hidden}


def _cost(call: RetellCall, duration_ms: int) -> Json:
    """In cents, as the vendor counts: by the started second."""
    seconds = -(-duration_ms // 1000)
    products = [name for name in CENTS_PER_MINUTE if name != "twilio" or call.call_type == "phone_call"]
    costs: list[Json] = [
        {
            "product": name,
            "unit_price": round(CENTS_PER_MINUTE[name] / 60, 6),
            "cost": round(CENTS_PER_MINUTE[name] * seconds / 60, 4),
        }
        for name in products
    ]
    return {
        "product_costs": costs,
        "total_duration_seconds": seconds,
        "total_duration_unit_price": round(sum(CENTS_PER_MINUTE[name] for name in products) / 60, 6),
        "combined_cost": round(sum(cost["cost"] for cost in costs), 4),
    }


def _spread(values: Iterable[float]) -> Json:
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "p50": at(0.5),
        "p90": at(0.9),
        "p95": at(0.95),
        "p99": at(0.99),
        "min": ordered[0],
        "max": ordered[-1],
        "num": len(ordered),
        "values": list(values),
    }


def _analysis(call: RetellCall) -> Json:
    turns = sum(item["role"] == "user" for item in call.items)
    return {
        "call_summary": f"The caller spoke {turns} times with {call.agent_name or 'the agent'}.",
        "in_voicemail": call.reason == "voicemail_reached",
        "user_sentiment": "Neutral" if turns else "Unknown",
        "call_successful": turns > 0 and call.status == "ended",
        "custom_analysis_data": {},
    }
