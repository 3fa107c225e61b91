"""The mouth and the ears of a simulated ElevenLabs agent.

`services.simulator.speech` is imported in here when a conversation begins: it loads numpy.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Protocol

from services.simulator import elevenlabs_frames as frames
from services.simulator.conversation import Brain, Hang, Script
from services.simulator.conversations import Conversation, Line
from services.simulator.elevenlabs_terms import Terms
from services.simulator.wire import Json

if TYPE_CHECKING:
    from services.simulator.elevenlabs_conversation import Wire

_RECORDED = 16_000
_SCORE_EVERY_MS = 200
_WORD_EVERY_MS = 250


class Talk(Protocol):
    """What mouth and ears need of their conversation."""

    record: Conversation

    @property
    def script(self) -> Script: ...

    def next_event(self) -> int: ...

    async def emit(self, frame: Json) -> None: ...

    async def hang(self, hang: Hang) -> None: ...

    async def interrupt(self) -> None: ...

    async def spoken(self, text: str) -> None: ...


class Voice:
    """Says one thing at a time, in chunks, at the pace it is heard and a little ahead."""

    def __init__(self, talk: Talk, wire: Wire, terms: Terms, seed: int) -> None:
        from services.simulator import speech

        self._speech = speech
        self._talk = talk
        self._wire = wire
        self._language = terms.language
        self._format = terms.output_format
        self._rate = speech.rate_of(terms.output_format)
        self._rng = random.Random(seed)
        self._pcm = b""
        self._started: float | None = None
        self._sent = 0
        self._line: Line | None = None
        self._event_id = 0
        self.last_audio_event = 0
        self.interruptible = True

    @property
    def audible(self) -> bool:
        """Whether the agent is being heard at this moment."""
        return self._started is not None

    def use_wrong_format(self) -> None:
        """From now on another format than the announced one."""
        self._format = "pcm_16000" if self._format.startswith("ulaw") else "ulaw_8000"

    async def prepare(self, text: str) -> None:
        """Make the sound of `text`."""
        voice = self._talk.script.voice
        self._pcm = await self._speech.speak(text, self._rate, voice=voice, language=self._language)

    async def speak(self, line: Line, event_id: int, hang: Hang | None, interruptible: bool) -> None:
        """Say what was prepared; returns when it has been heard. `hang` strikes inside."""
        loop = asyncio.get_running_loop()
        script, rate, pcm = self._talk.script, self._rate, self._pcm
        total_ms = len(pcm) / 2 * 1000 / rate
        letters = self._speech.alignment(line.text or "", total_ms)
        self._line, self._event_id, self._sent = line, event_id, 0
        self.interruptible = interruptible
        self._started = started = loop.time()
        self._talk.record.speaking = True
        position = 0.0
        while position < total_ms:
            if hang is not None and position >= hang.at_ms:
                strike, hang = hang, None
                # When it has been heard: what was sent ahead has arrived, even before a crash.
                await _until(started + position / 1000 / script.pace)
                await self._talk.hang(strike)
            length = min(self._chunk_ms(), total_ms - position)
            await _until(started + (position - script.lead_ms) / 1000 / script.pace)
            begin, end = (round(place * rate / 1000) * 2 for place in (position, position + length))
            chars = [
                (char, round(start - position), took)
                for char, start, took in letters
                if position <= start < position + length
            ]
            await self._send(pcm[begin:end], chars)
            self._sent = end
            position += length
        if hang is not None:
            await self._talk.hang(hang)
        await _until(started + total_ms / 1000 / script.pace)
        self.keep()

    def cut(self) -> tuple[Line, int, float] | None:
        """Stop: what was being said, its event, and how much of it was heard (0 to 1)."""
        if self._started is None or self._line is None:
            return None
        heard = (asyncio.get_running_loop().time() - self._started) * self._talk.script.pace
        total = len(self._pcm) / 2 / self._rate
        self._sent = min(self._sent, int(heard * self._rate) * 2)
        self.keep()
        return self._line, self._event_id, min(1.0, heard / total) if total else 1.0

    def keep(self) -> None:
        """Silence now; what was heard goes into the recording."""
        if self._started is None or self._line is None:
            return
        self._started = None
        self._talk.record.speaking = False
        said = self._pcm[: self._sent]
        self._talk.record.keep_audio(
            "agent", self._line.at_ms, self._speech.resample(said, self._rate, _RECORDED)
        )

    def _chunk_ms(self) -> int:
        """Chunks differ, as the vendor's do: half to one and a half times the script's, 20 to 250 ms."""
        usual = self._talk.script.chunk_ms
        return max(20, min(250, self._rng.randint(usual // 2, usual * 3 // 2)))

    async def _send(self, pcm: bytes, chars: list[tuple[str, int, int]]) -> None:
        event_id = self._talk.next_event()
        self._talk.record.agent_audio_ms += len(pcm) / 2 * 1000 / self._rate
        data = b""
        if self._wire.carries_audio:
            data = self._speech.encode(pcm, self._rate, self._format)
        await self._talk.emit(frames.audio(event_id, data, chars))
        self.last_audio_event = event_id
        if not self._wire.carries_audio:
            await self._wire.play(pcm, self._rate)


class Ears:
    """Hears the user: turns by energy, transcripts from the script, scores, interruptions.

    What the client sends is put in a queue, so that reading never waits for sending.
    """

    def __init__(self, talk: Talk, brain: Brain, terms: Terms) -> None:
        from services.simulator import speech

        self._speech = speech
        self._talk = talk
        self._brain = brain
        self._format = terms.input_format
        self.rate = speech.rate_of(terms.input_format)
        self._silence_ms = talk.script.silence_ms
        self._detector = speech.TurnDetector(self.rate, self._silence_ms)
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._turns = 0
        self._event_id = 0
        self._spoken_ms = 0.0
        self._words = 0
        self._since_score_ms = 0.0

    def hear(self, pcm: bytes) -> None:
        self._heard.put_nowait(pcm)

    def hear_encoded(self, data: bytes) -> None:
        """Audio in the format that was announced."""
        self.hear(self._speech.decode(data, self._format))

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            patience = self._silence_ms * 2 / 1000 if self._detector.speaking else None
            try:
                async with asyncio.timeout(patience):
                    pcm = await self._heard.get()
            except TimeoutError:
                # Nothing comes any more: a client that was muted, or lets go of a push-to-talk key.
                await self._feed(self._speech.silence(self._silence_ms + 20, self.rate))
                continue
            ms = len(pcm) / 2 * 1000 / self.rate
            record = self._talk.record
            record.audio_ms += ms
            at_ms = max(0, record.now_ms() - round(ms))
            record.keep_audio("user", at_ms, self._speech.resample(pcm, self.rate, _RECORDED))
            await self._feed(pcm)
            await self._score(ms)

    async def _feed(self, pcm: bytes) -> None:
        for event in self._detector.feed(pcm):
            if isinstance(event, self._speech.SpeechStarted):
                self._event_id = self._talk.next_event()
                self._spoken_ms, self._words = 0.0, 0
                await self._talk.interrupt()
            else:
                text = self._brain.heard(self._turns, event.duration_ms)
                self._turns += 1
                await self._talk.emit(frames.user_transcript(self._event_id, text))
                await self._talk.spoken(text)
        if self._detector.speaking:
            self._spoken_ms += len(pcm) / 2 * 1000 / self.rate
            await self._talk.interrupt()  # the agent may have begun meanwhile
            await self._guess()

    async def _guess(self) -> None:
        """What the user may be saying: a word more for every quarter of a second; “…” without a script."""
        text = self._brain.heard(self._turns, round(self._spoken_ms))
        words = ["…"] if text.startswith("(") else text.split()
        count = min(len(words), int(self._spoken_ms / _WORD_EVERY_MS) + 1)
        if count > self._words:
            self._words = count
            text = " ".join(words[:count])
            await self._talk.emit(frames.tentative_user_transcript(self._event_id, text))

    async def _score(self, ms: float) -> None:
        self._since_score_ms += ms
        if self._talk.script.vad and self._since_score_ms >= _SCORE_EVERY_MS:
            self._since_score_ms = 0.0
            await self._talk.emit(frames.vad_score(self._detector.score))


async def _until(when: float) -> None:
    await asyncio.sleep(max(0.0, when - asyncio.get_running_loop().time()))
