"""Spoken calls of the real command on real devices: PulseAudio's, whose microphone a test speaks into."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from services.calls.wave_file import read_track
from services.simulator.speech import tones
from tests.support.headless import Town, complete, event, finish, is_kind, start, town, until
from tests.support.pulse import PulseServer, alsa_configuration, running_pulse
from tests.support.sounds import likeness, loudness, speech_like

RATE = 16_000
ALIKE = {"microphone": 0.9, "webrtc": 0.6}
"""WebRTC codes the sound and stretches it here and there, so that long pieces line up less well."""
PACED = {"pace": 1, "silence_ms": 500, "think_ms": 120}
GREETING = "Good morning and welcome to the practice how may I be of help to you on this fine and sunny day"
BEGINNING, REST = " ".join(GREETING.split()[:3]), " ".join(GREETING.split()[-8:])
ANSWER = "We open at eight and close at six"
HEARD = ("When do you open?", "That is all, goodbye.")
BARGE, BYE = speech_like(RATE, 0.9, seed=1), speech_like(RATE, 0.9, seed=2)


@pytest.fixture(scope="module")
def desk() -> Iterator[PulseServer]:
    with running_pulse("mic", "speaker") as server:
        yield server


@pytest.fixture
def devices(desk: PulseServer) -> Iterator[dict[str, str]]:
    """The environment of a program that sees `fake_mic` and `fake_speaker`; plugged in again at the end."""
    configuration = desk.folder / "asound.conf"
    names = [("fake_mic", desk, "mic.monitor"), ("fake_speaker", desk, "speaker")]
    configuration.write_text(alsa_configuration(names, desk))
    yield {
        "ALSA_CONFIG_PATH": str(configuration),
        "PULSE_SERVER": desk.address,
        "PULSE_COOKIE": str(desk.folder / "cookie"),
    }
    desk.plug("mic")
    desk.plug("speaker")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town")) as made:
        yield made


@pytest.fixture
def vendors(simulated: Town) -> Town:
    simulated.clear()
    return simulated


def words(agent: str, kind: str) -> tuple[str, ...]:
    names = ("--input-device", "fake_mic", "--output-device", "fake_speaker")
    return ("call", agent, "--transport", kind, *names, "--no-aec", "--json")


def conversation(vendors: Town, agent: str) -> None:
    turns = [
        {"heard": HEARD[0], "say": ANSWER},
        {"heard": HEARD[1], "say": "Goodbye", "end": True},
    ]
    vendors.script(agent, greeting=GREETING, turns=turns, **PACED)


def recording_of(vendors: Town, conversation_id: str) -> bytes:
    """What the simulator heard and said, as the vendor gives it: an MP3."""
    address = f"{vendors.simulator.elevenlabs_url}/v1/convai/conversations/{conversation_id}/audio"
    request = urllib.request.Request(address, headers={"xi-api-key": vendors.simulator.key})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer, av.open(io.BytesIO(answer.read())) as file:
        to_pcm = av.AudioResampler("s16", "mono", RATE)
        frames = [each for frame in file.decode(audio=0) for each in to_pcm.resample(frame)]
        return b"".join(bytes(each.planes[0])[: each.samples * 2] for each in frames)


@pytest.mark.parametrize("kind", ["microphone", "webrtc"])
def test_a_conversation_through_real_devices(kind, vendors, desk, devices):
    """Spoken over in its greeting, answered, and ended by the agent: every sound is where it belongs."""
    agent = vendors.elevenlabs[0]
    conversation(vendors, agent)
    with desk.recording("speaker", RATE) as heard:
        process = start(vendors.home, *words(agent, kind), **devices)
        folder = Path(event(process, is_kind("call"))["folder"])
        used = event(process, is_kind("devices"))
        assert (used["input"], used["output"]) == ("fake_mic", "fake_speaker")
        event(process, is_kind("agent_speaking", on=True))
        heard.wait_for(len(heard.pcm) + RATE * 2)  # a second of the greeting, at least
        with desk.playing("mic", BARGE, RATE):
            event(process, is_kind("interrupted"))
            assert (
                event(process, lambda each: each["kind"] == "user" and each.get("final", True))["text"]
                == (HEARD[0])
            )
            event(process, is_kind("agent", text=ANSWER))
            event(process, is_kind("agent_speaking", on=False))
        with desk.playing("mic", BYE, RATE):
            told = finish(process)
    assert told.code == 0, told
    assert told.summary["reason"] == "agent_ended"
    assert told.summary["interruptions"] == 1
    assert told.summary["p50_ms"] is not None

    for text in (BEGINNING, ANSWER):
        assert all(likeness(tones(word, RATE), heard.pcm) >= 0.9 for word in text.split()), text
    assert likeness(tones(ANSWER, RATE), heard.pcm) >= ALIKE[kind]
    assert likeness(tones(REST, RATE), heard.pcm) < 0.5, "what was interrupted was played to its end"

    (talk,) = vendors.conversations(agent)
    spoken = [line["text"] for line in talk["transcript"] if line["role"] == "user"]
    assert spoken == list(HEARD)
    assert likeness(BYE, recording_of(vendors, talk["id"])) >= ALIKE[kind]

    complete(folder)
    you, own_rate = read_track(folder / "you.wav")
    agents, agent_rate = read_track(folder / "agent.wav")
    assert likeness(resampled(BYE, own_rate), you) >= ALIKE[kind]
    assert likeness(tones(ANSWER, agent_rate), agents) >= ALIKE[kind]
    assert likeness(tones(REST, agent_rate), agents) < 0.5


def resampled(pcm: bytes, rate: int) -> bytes:
    from services.simulator.speech import resample

    return resample(pcm, RATE, rate)


@pytest.mark.parametrize(
    ("vendor", "kind", "code", "reason"),
    [("elevenlabs", "microphone", 0, "agent_ended"), ("retell", "webrtc", 1, "device_lost")],
)
def test_devices_that_are_pulled_out(vendor, kind, code, reason, vendors, desk, devices):
    """Where the call can be typed on, it goes on; else it ends and says why. What was heard is recorded."""
    agent = getattr(vendors, vendor)[0]
    bye = {"hear": "bye", "say": "Goodbye", "end": True}
    vendors.script(agent, greeting=GREETING, interruptible=False, turns=[bye], **PACED)
    process = start(vendors.home, *words(agent, kind), **devices)
    folder = Path(event(process, is_kind("call"))["folder"])
    event(process, is_kind("agent_speaking", on=True))
    track = folder / "agent.wav"
    until(lambda: sounding(track) > RATE, "some of the agent")
    desk.unplug("mic", "speaker")
    told = event(process, is_kind("notice"))
    assert "fake_" in told["text"]
    if reason == "agent_ended":
        assert process.stdin is not None
        process.stdin.write("bye\n")
        process.stdin.flush()
        next_one = event(process, lambda each: each["kind"] in ("agent_speaking", "typed"))
        assert next_one["kind"] == "agent_speaking", "the agent counts as speaking for ever"
    ended = finish(process)
    assert (ended.code, ended.summary["reason"]) == (code, reason), ended
    complete(folder)
    heard, rate = read_track(track)
    assert likeness(tones("Good", rate), heard) >= 0.9
    assert loudness(read_track(folder / "you.wav")[0]) < -60


def sounding(track: Path) -> int:
    """How many samples of a track that is being written are not silence."""
    data = track.read_bytes()[44:]
    return int(np.count_nonzero(np.frombuffer(data[: len(data) // 2 * 2], "<i2")))
