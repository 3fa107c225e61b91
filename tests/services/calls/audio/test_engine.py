"""A call's audio over PortAudio and a real PulseAudio: what goes in comes out, whatever the devices do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from services.calls.audio import devices, pair
from services.calls.audio.engine import FRAMES_KEPT, AudioEngine, CapturedFrame
from services.calls.audio.streams import DeviceStream
from services.errors import ServiceError, UsageError
from tests.support.sounds import likeness, loudness, speech_like, tone

ALIKE = 0.9


async def until(condition: Callable[[], Any], limit: float = 15.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


class Call:
    """An engine, its frames, and everything it told."""

    def __init__(self, **options: Any) -> None:
        self.problems: list[ServiceError] = []
        self.input: list[tuple[bytes, float]] = []
        self.output: list[tuple[bytes, float]] = []
        self.frames: list[CapturedFrame] = []
        defaults = {"input_device": "fake_mic", "output_device": "fake_speaker", "echo": False}
        rates = (options.pop("input_rate", 16_000), options.pop("output_rate", 24_000))
        self.engine = AudioEngine(
            *rates,
            **{**defaults, **options},
            on_problem=self.problems.append,
            on_input=lambda pcm, at: self.input.append((pcm, at)),
            on_output=lambda pcm, at: self.output.append((pcm, at)),
        )

    async def read(self) -> None:
        async for frame in self.engine.frames():
            self.frames.append(frame)

    @property
    def heard(self) -> bytes:
        return b"".join(frame.pcm for frame in self.frames)

    @property
    def codes(self) -> list[str]:
        return sorted(problem.code for problem in self.problems)

    async def flowing(self) -> None:
        """Until frames come from the device in use now."""
        count = len(self.frames)
        await until(lambda: len(self.frames) >= count + 5)


@asynccontextmanager
async def calling(**options: Any) -> AsyncIterator[Call]:
    call = Call(**options)
    await call.engine.start()
    reading = asyncio.create_task(call.read())
    try:
        yield call
    finally:
        await call.engine.aclose()
        await asyncio.wait_for(reading, 5)


# -- what goes in comes out -------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
async def test_the_microphone_arrives(room, rate):
    sound = speech_like(rate, 1.5)
    async with calling(input_rate=rate) as call:
        await call.flowing()
        with room.desk.playing("mic", sound + bytes(rate), rate) as player:
            await asyncio.to_thread(player.wait, 20)
        await call.flowing()
    assert likeness(sound, call.heard) >= ALIKE
    assert {len(frame.pcm) for frame in call.frames} == {rate // 50 * 2}
    assert [pcm for pcm, _ in call.input] == [frame.pcm for frame in call.frames]
    assert [at for _, at in call.input] == [frame.captured_at for frame in call.frames]
    assert max(frame.level for frame in call.frames) > -25
    assert any(frame.speaking for frame in call.frames)
    assert not call.frames[0].speaking
    assert call.engine.dropped_frames == call.engine.overruns == 0


async def test_times_of_frames_follow_each_other(room):
    async with calling() as call:
        before = time.monotonic()
        await until(lambda: len(call.frames) > 60)
    steps = [
        after.captured_at - frame.captured_at
        for frame, after in zip(call.frames, call.frames[1:], strict=False)
    ]
    assert min(steps) > 0
    assert sum(step == pytest.approx(0.02, abs=1e-6) for step in steps) > len(steps) * 0.8
    assert abs(call.frames[0].captured_at - before) < 5


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100])
async def test_the_agents_voice_is_heard(room, rate):
    sound = speech_like(rate, 1.5)
    async with calling(output_rate=rate) as call:
        with room.desk.recording("speaker", rate) as recorded:
            step = rate // 10 * 2
            for at in range(0, len(sound), step):
                call.engine.play(sound[at : at + step], 3)
            assert call.engine.playing
            await until(lambda: not call.engine.playing)
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + rate // 2)
        assert likeness(sound, recorded.pcm) >= ALIKE
        assert b"".join(pcm for pcm, _ in call.output) == sound
        assert call.engine.played_ms(3) == pytest.approx(1500, abs=1)
        assert call.engine.buffered_ms == 0
        assert call.engine.underruns == 0


async def test_both_ways_at_once(room):
    mine, theirs = speech_like(16_000, 1.5, seed=1), speech_like(24_000, 1.5, seed=2)
    async with calling() as call:
        await call.flowing()
        with room.desk.recording("speaker", 24_000) as recorded:
            with room.desk.playing("mic", mine + bytes(16_000), 16_000) as player:
                call.engine.play(theirs, 1)
                await asyncio.to_thread(player.wait, 20)
            await until(lambda: not call.engine.playing)
            await call.flowing()
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + 10_000)
    assert likeness(mine, call.heard) >= ALIKE
    assert likeness(theirs, recorded.pcm) >= ALIKE


async def test_what_was_played_is_told_with_times_that_fit(room):
    async with calling() as call:
        call.engine.play(tone(24_000, 0.5), 1)
        await until(lambda: call.engine.played_ms(1) == 500)
        call.engine.play(tone(24_000, 0.3), 2)
        await until(lambda: call.engine.played_ms(2) == 300)
        starved = call.engine.underruns
    ends = None
    starts = []
    for pcm, at in call.output:
        if ends is None or at - ends > 0.01:
            starts.append(at)
        else:
            assert at == pytest.approx(ends, abs=1e-6)
        ends = at + len(pcm) / 48_000
    assert 2 <= len(starts) <= 2 + starved


async def test_a_device_that_refuses_the_rate_and_mono_is_resampled(room, monkeypatch):
    """As many a card does that is opened without a sound server."""
    sounddevice = devices.load()
    opened = []

    def picky(real: Any) -> Any:
        def build(**options: Any) -> Any:
            if options["channels"] != 2:
                raise sounddevice.PortAudioError("Invalid number of channels", -9998)
            if options["samplerate"] != 44_100:
                raise sounddevice.PortAudioError("Invalid sample rate", -9997)
            opened.append(options)
            return real(**options)

        return build

    for name in ("RawInputStream", "RawOutputStream"):
        monkeypatch.setattr(sounddevice, name, picky(getattr(sounddevice, name)))
    mine, theirs = speech_like(16_000, 1.5, seed=1), speech_like(24_000, 1.5, seed=2)
    async with calling() as call:
        await call.flowing()
        with room.desk.recording("speaker", 24_000) as recorded:
            with room.desk.playing("mic", mine + bytes(16_000), 16_000) as player:
                call.engine.play(theirs, 1)
                await asyncio.to_thread(player.wait, 20)
            await until(lambda: not call.engine.playing)
            await call.flowing()
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + 10_000)
    assert len(opened) == 2
    assert likeness(mine, call.heard) >= ALIKE
    assert likeness(theirs, recorded.pcm) >= ALIKE
    assert b"".join(pcm for pcm, _ in call.output) == theirs


# -- interrupting, muting ---------------------------------------------------------------------------


async def test_an_interruption_silences_what_is_queued_and_what_the_device_has(room):
    first, second = tone(24_000, 6.0, 440), speech_like(24_000, 1.0)
    async with calling() as call:
        with room.desk.recording("speaker", 24_000) as recorded:
            call.engine.play(first, 4)
            await until(lambda: call.engine.played_ms(4) >= 300)
            call.engine.drop(4)
            assert not call.engine.playing
            assert call.engine.buffered_ms == 0
            said = call.engine.played_ms(4)
            call.engine.play(first, 4)
            call.engine.play(first, 3)
            assert not call.engine.playing, "late audio of what was interrupted"
            call.engine.play(second, 5)
            await until(lambda: call.engine.played_ms(5) == 1000)
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + 10_000)
        assert call.engine.played_ms(4) == said < 3000
        assert call.engine.played_ms(3) == 0
    pieces = [recorded.pcm[at : at + 960] for at in range(0, len(recorded.pcm), 960)]
    assert sum(loudness(piece) > -30 for piece in pieces) * 20 < said + 1000 + 500
    assert likeness(second, recorded.pcm) >= ALIKE


async def test_dropping_everything_does_not_forbid_what_comes_next(room):
    async with calling() as call:
        call.engine.play(tone(24_000, 5.0))
        await until(lambda: call.engine.played_ms(0) > 100)
        call.engine.drop()
        assert not call.engine.playing
        call.engine.play(tone(24_000, 0.3))
        before = call.engine.played_ms(0)
        await until(lambda: not call.engine.playing)
        assert call.engine.played_ms(0) == pytest.approx(before + 300, abs=2)


async def test_an_interruption_leaves_a_newer_event_alone(room):
    async with calling() as call:
        call.engine.play(tone(24_000, 0.4), 7)
        await until(lambda: call.engine.played_ms(7) > 0)
        call.engine.drop(6)
        await until(lambda: call.engine.played_ms(7) == 400)


async def test_an_interruption_of_nothing_is_nothing(room):
    async with calling() as call:
        call.engine.drop(1)
        call.engine.drop()
        await call.flowing()
        assert not call.problems


async def test_muted_frames_are_silence_and_keep_coming(room):
    async with calling() as call:
        with room.desk.playing("mic", tone(16_000, 30.0), 16_000):
            await until(lambda: call.frames and any(call.frames[-1].pcm))
            call.engine.mute(True)
            await call.flowing()
            assert not any(any(frame.pcm) for frame in call.frames[-3:])
            assert call.engine.input_meter.level_db == -90
            call.engine.mute(False)
            await until(lambda: any(call.frames[-1].pcm))


async def test_push_to_talk_sends_only_what_is_held(room):
    async with calling() as call:
        with room.desk.playing("mic", tone(16_000, 30.0), 16_000):
            await until(lambda: call.frames and any(call.frames[-1].pcm))
            call.engine.push_to_talk(True)
            await call.flowing()
            assert not any(call.frames[-1].pcm)
            call.engine.push_to_talk(True, held=True)
            await call.flowing()
            assert any(call.frames[-1].pcm)
            call.engine.mute(True)
            await call.flowing()
            assert not any(call.frames[-1].pcm), "muted is muted"
            call.engine.mute(False)
            call.engine.push_to_talk(False)
            await call.flowing()
            assert any(call.frames[-1].pcm)


async def test_the_echo_of_a_room_is_reduced(room):
    pytest.importorskip("livekit.rtc")
    sound = speech_like(24_000, 5.0)
    levels = {}
    for wanted in (False, True):
        with room.desk.looped("speaker", "mic"):
            async with calling(echo=wanted) as call:
                await call.flowing()
                call.engine.play(sound, 1)
                await until(lambda call=call: call.engine.played_ms(1) > 2500)
                count = len(call.frames)
                await until(lambda call=call: call.engine.played_ms(1) > 4500)
                levels[wanted] = loudness(b"".join(frame.pcm for frame in call.frames[count:]))
                if wanted:
                    assert call.engine.echo_state == "echo cancelled"
    assert levels[False] - levels[True] >= 10


# -- devices ----------------------------------------------------------------------------------------


async def test_devices_are_switched_during_the_call(room):
    async with calling(input_device="", output_device="") as call:
        assert (call.engine.input_name, call.engine.output_name) == ("default", "default")
        await call.flowing()
        await call.engine.switch(input="fake_mic", output="fake_speaker")
        assert (call.engine.input_name, call.engine.output_name) == ("fake_mic", "fake_speaker")
        mine, theirs = speech_like(16_000, 1.0, seed=1), speech_like(24_000, 1.0, seed=2)
        await call.flowing()
        with room.desk.recording("speaker", 24_000) as recorded:
            with room.desk.playing("mic", mine + bytes(16_000), 16_000) as player:
                call.engine.play(theirs, 1)
                await asyncio.to_thread(player.wait, 20)
            await until(lambda: not call.engine.playing)
            await call.flowing()
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + 10_000)
        assert likeness(mine, call.heard) >= ALIKE
        assert likeness(theirs, recorded.pcm) >= ALIKE
        assert not call.problems


async def test_a_switch_in_the_middle_of_a_word_goes_on_with_it(room):
    sound = speech_like(24_000, 2.0)
    async with calling() as call:
        call.engine.play(sound, 1)
        await until(lambda: call.engine.played_ms(1) > 300)
        await call.engine.switch(output="default")
        await until(lambda: not call.engine.playing)
        assert b"".join(pcm for pcm, _ in call.output) == sound


async def test_a_switch_to_nowhere_changes_nothing(room):
    async with calling() as call:
        with pytest.raises(UsageError) as caught:
            await call.engine.switch(input="no such thing")
        assert caught.value.code == "unknown_device"
        assert call.engine.input_name == "fake_mic"
        await call.flowing()


async def test_a_lost_device_is_replaced_by_the_default_one(room):
    async with calling() as call:
        await call.flowing()
        room.desk.unplug("mic", "speaker")
        await until(lambda: len(call.problems) == 2)
        assert call.codes == ["device_replaced", "device_replaced"]
        assert any("'fake_mic' is gone; 'default' is used instead" in each.message for each in call.problems)
        assert (call.engine.input_name, call.engine.output_name) == ("default", "default")
        sound = speech_like(24_000, 1.0)
        await call.flowing()
        with room.spare.recording("spare", 24_000) as recorded:
            call.engine.play(sound, 1)
            await until(lambda: call.engine.played_ms(1) == 1000)
            await asyncio.to_thread(recorded.wait_for, len(recorded.pcm) + 10_000)
        assert likeness(sound, recorded.pcm) >= ALIKE


async def test_what_comes_while_a_device_is_replaced_is_played_on_the_new_one(room):
    async with calling() as call:
        await call.flowing()
        room.desk.unplug("mic", "speaker")
        await until(lambda: call.engine.output_device is None or call.problems)
        call.engine.play(tone(24_000, 0.5), 9)
        await until(lambda: call.engine.played_ms(9) == 500)


async def test_with_no_device_left_the_call_is_told_and_can_go_on(room):
    async with calling() as call:
        await call.flowing()
        room.spare.unplug("spare")
        call.engine.play(tone(24_000, 20.0), 1)
        room.desk.unplug("mic", "speaker")
        await until(lambda: len(call.problems) == 2)
        assert call.codes == ["device_lost", "device_lost"]
        assert (call.engine.input_name, call.engine.output_name) == ("", "")
        call.engine.play(tone(24_000, 1.0), 2)
        await until(lambda: not call.engine.playing)
        room.desk.plug("mic")
        room.desk.plug("speaker")
        await call.engine.switch(input="fake_mic", output="fake_speaker")
        await call.flowing()
        call.engine.play(tone(24_000, 0.3), 3)
        await until(lambda: call.engine.played_ms(3) == 300)


async def test_devices_are_looked_for_during_the_call(room):
    before = room.configuration.read_text()
    async with calling() as call:
        await call.flowing()
        room.configuration.write_text(
            f'{before}pcm.fake_headset {{ type pulse server "{room.desk.address}" hint {{ show on }} }}\n'
        )
        try:
            assert "fake_headset" in {each.name for each in await call.engine.rescan()}
            assert (call.engine.input_name, call.engine.output_name) == ("fake_mic", "fake_speaker")
            await call.flowing()
            await call.engine.switch(output="fake_headset")
            assert call.engine.output_name == "fake_headset"
            assert not call.problems
        finally:
            room.configuration.write_text(before)


async def test_devices_in_use_are_not_looked_for_behind_the_calls_back(room):
    async with calling():
        with pytest.raises(ServiceError) as caught:
            await asyncio.to_thread(devices.refresh)
        assert caught.value.code == "audio_in_use"
    await asyncio.to_thread(devices.refresh)


async def test_a_device_that_does_not_exist_opens_nothing(room):
    call = Call(input_device="no such thing")
    with pytest.raises(UsageError):
        await call.engine.start()
    await asyncio.to_thread(devices.refresh)  # refused while something is open


async def test_a_device_that_refuses_is_told_in_its_own_words(room, monkeypatch):
    sounddevice = devices.load()

    def busy(**options: Any) -> Any:
        raise sounddevice.PortAudioError("Error opening RawInputStream: Device unavailable", -9985)

    monkeypatch.setattr(sounddevice, "RawInputStream", busy)
    with pytest.raises(ServiceError) as caught:
        await Call().engine.start()
    assert caught.value.code == "device_refused"
    assert caught.value.message == "The microphone 'fake_mic' does not open: Device unavailable"


async def test_a_driver_that_hangs_holds_nobody_up_and_is_closed_later(room, monkeypatch):
    gate, entered = threading.Event(), threading.Event()
    real = DeviceStream.open

    def stuck(stream: DeviceStream) -> None:
        if stream.port.kind == "input":
            entered.set()
            gate.wait(20)
        real(stream)

    monkeypatch.setattr(DeviceStream, "open", stuck)
    monkeypatch.setattr(pair, "OPEN_SECONDS", 0.2)
    with pytest.raises(ServiceError) as caught:
        await Call().engine.start()
    assert caught.value.code == "device_stuck"
    assert entered.is_set()
    gate.set()
    await until(lambda: not any("audio" in thread.name for thread in threading.enumerate()))
    await asyncio.to_thread(devices.refresh)


# -- bounds and ends --------------------------------------------------------------------------------


async def test_frames_nobody_reads_are_dropped_and_counted(room):
    call = Call()
    await call.engine.start()
    try:
        await until(lambda: call.engine.dropped_frames > 5)
        waiting = 0
        async for _ in call.engine.frames():
            waiting += 1
            if waiting == FRAMES_KEPT:
                break
        assert call.engine.stats().dropped_frames >= 5
    finally:
        await call.engine.aclose()


async def test_the_end_leaves_no_thread_and_no_task(room):
    async with calling(echo=True) as call:
        call.engine.play(tone(24_000, 5.0), 1)
        await until(lambda: call.engine.played_ms(1) > 0)
        call.engine.drop(1)
    await call.engine.aclose()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    await until(lambda: not any("audio" in thread.name for thread in threading.enumerate()))
    call.engine.play(tone(24_000, 1.0), 2)
    call.engine.drop()
    assert not call.engine.playing
    count = len(call.input)
    await asyncio.to_thread(devices.refresh)
    assert len(call.input) == count


async def test_what_was_heard_until_the_end_is_told_and_no_more(room):
    async with calling() as call:
        call.engine.play(tone(24_000, 5.0), 1)
        await until(lambda: call.engine.played_ms(1) > 500)
    told = sum(len(pcm) for pcm, _ in call.output) / 48
    assert told == pytest.approx(call.engine.played_ms(1), abs=1)
    assert told < 4_000


async def test_closing_while_it_opens(room):
    call = Call()
    opening = asyncio.create_task(call.engine.start())
    await asyncio.sleep(0)
    await call.engine.aclose()
    opening.cancel()
    await asyncio.gather(opening, return_exceptions=True)
    await until(lambda: not any("audio" in thread.name for thread in threading.enumerate()))
    await asyncio.to_thread(devices.refresh)


async def test_listeners_that_fail_do_not_stop_the_audio(room):
    def broken(*arguments: object) -> None:
        raise ValueError("a listener's own mistake")

    engine = AudioEngine(
        16_000,
        24_000,
        input_device="fake_mic",
        output_device="fake_speaker",
        echo=False,
        on_input=broken,
        on_output=broken,
    )
    await engine.start()
    try:
        engine.play(tone(24_000, 0.2), 1)
        await until(lambda: engine.played_ms(1) == 200)
        count = 0
        async for _ in engine.frames():
            count += 1
            if count > 5:
                break
    finally:
        await engine.aclose()


async def test_echo_cancellation_that_breaks_is_replaced(room):
    async with calling() as call:

        def broken(*arguments: object) -> bytes:
            raise RuntimeError("native code")

        call.engine._echo = SimpleNamespace(  # type: ignore[assignment]
            capture=broken, playback=broken, set_delay=broken, state="echo cancelled", reduction_db=None
        )
        await until(lambda: call.engine.echo_state == "half duplex")
        await call.flowing()


async def test_figures_of_a_call(room):
    async with calling() as call:
        assert call.engine.jitter_ms is None
        for _ in range(30):
            call.engine.play(tone(24_000, 0.02), 1)
            await asyncio.sleep(0.02)
        await until(lambda: not call.engine.playing)
        figures = call.engine.stats()
    assert figures.capture_delay_p95_ms is not None
    assert 0 <= (figures.capture_delay_p50_ms or 0) <= figures.capture_delay_p95_ms
    assert figures.play_delay_p95_ms is not None
    assert figures.output_latency_ms is not None
    assert figures.output_latency_ms > 0
    assert figures.input_latency_ms is not None
    assert figures.arrival_jitter_ms is not None
    assert call.engine.output_meter.bars(4)
