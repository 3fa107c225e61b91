"""The recording of a call: one folder, complete at any moment, written by a thread of its own.

`events.jsonl` is the truth (one message a line, with its time); `transcript.txt`, `latency.csv` and
`tools.json` are made from it when the call is over, or when a killed call is found later. The two tracks
share the call's time axis: `you.wav` is what the microphone gave, `agent.wav` what was played.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from services.calls.messages import Ended, Message, Notice, StateChanged, encode
from services.calls.wave_file import WaveWriter
from services.security import redact

log = logging.getLogger(__name__)

EVENTS, META, BRIEF, LOG = "events.jsonl", "call.json", "brief.json", "call.log"
TRACKS = {"you": "you.wav", "agent": "agent.wav"}
SETTLE_SECONDS = 1.0
"""How much audio a kill may take from the end of a track's header (the samples are there)."""


class Recorder:
    """Takes messages and audio from the event loop and never makes it wait.

    What the company does not want kept is not written in the first place.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_audio: bool = True,
        keep_transcript: bool = True,
    ) -> None:
        self.folder = folder
        self.keep_audio = keep_audio
        self.keep_transcript = keep_transcript
        self.on_problem: Callable[[str], None] | None = None
        """Called on the loop, once, with the reason when the disk takes no more."""
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._events: TextIO | None = None
        self._log: TextIO | None = None
        self._tracks: dict[str, WaveWriter] = {}
        self._failed = False

    async def open(self, meta: Mapping[str, Any], brief: Mapping[str, Any]) -> None:
        """Create the folder with the metadata and the brief. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._create, dict(meta), dict(brief))
        self._thread = threading.Thread(target=self._work, name="callboard-recorder", daemon=True)
        self._thread.start()

    def message(self, t: int, message: Message) -> None:
        """Store one message, `t` milliseconds after the start."""
        data = {"t": t, **encode(message, texts=self.keep_transcript)}
        line = json.dumps(data, ensure_ascii=False, default=str)
        remark = _remark(message)
        self._put(lambda: self._write_event(line, f"{t / 1000:9.3f}  {remark}" if remark else ""))

    def start_audio(self, input_rate: int, output_rate: int) -> None:
        """Begin both tracks, in these rates (Hz)."""
        if self.keep_audio:
            self._put(lambda: self._open_tracks(input_rate, output_rate))

    def audio(self, track: str, at_ms: float, pcm: bytes) -> None:
        """Audio of `you` or `agent` that began `at_ms` after the start."""
        if self.keep_audio:
            self._put(lambda: self._write_audio(track, at_ms, pcm))

    def note(self, t: int, text: str) -> None:
        """A line for the log only."""
        self._put(lambda: self._write_event("", f"{t / 1000:9.3f}  {text}"))

    async def close(self, meta: Mapping[str, Any]) -> None:
        """Write what is queued, the final metadata, and close the files. Never raises."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        final = dict(meta)
        self._jobs.put(lambda: _write_json(self.folder / META, final))
        self._jobs.put(None)
        await asyncio.to_thread(thread.join)

    # -- the thread -------------------------------------------------------------------------------

    def _put(self, job: Callable[[], None]) -> None:
        if self._thread is not None and not self._failed:
            self._jobs.put(job)

    def _create(self, meta: dict[str, Any], brief: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_json(self.folder / META, meta)
        if self.keep_transcript:
            _write_json(self.folder / BRIEF, brief)
        self._events = _open_text(self.folder / EVENTS)
        self._log = _open_text(self.folder / LOG)

    def _work(self) -> None:
        settled = time.monotonic()
        while (job := self._jobs.get()) is not None:
            self._attempt(job)
            if self._jobs.empty():
                self._attempt(self._flush)
            if time.monotonic() - settled > SETTLE_SECONDS:
                settled = time.monotonic()
                self._attempt(self._settle)
        for finish in (self._flush, *(track.close for track in self._tracks.values())):
            self._attempt(finish)
        for file in (self._events, self._log):
            if file is not None:
                self._attempt(file.close)

    def _attempt(self, job: Callable[[], None]) -> None:
        try:
            job()
        except (OSError, ValueError) as error:
            if not self._failed:
                self._failed = True
                reason = getattr(error, "strerror", None) or str(error)
                log.error("the recording in %s stopped: %s", self.folder, reason)
                if self._loop is not None and self.on_problem is not None and not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self.on_problem, reason)

    def _flush(self) -> None:
        for file in (self._events, self._log):
            if file is not None:
                file.flush()

    def _settle(self) -> None:
        for track in self._tracks.values():
            track.settle()

    def _write_event(self, line: str, remark: str) -> None:
        if line and self._events is not None:
            self._events.write(line + "\n")
        if remark and self._log is not None:
            self._log.write(redact(remark) + "\n")

    def _open_tracks(self, input_rate: int, output_rate: int) -> None:
        for name, rate in (("you", input_rate), ("agent", output_rate)):
            if rate and name not in self._tracks:
                self._tracks[name] = WaveWriter(self.folder / TRACKS[name], rate)

    def _write_audio(self, track: str, at_ms: float, pcm: bytes) -> None:
        writer = self._tracks.get(track)
        if writer is not None:
            writer.write(pcm, at_ms)


def _remark(message: Message) -> str:
    """What the log says of a message; nothing of what was said."""
    if isinstance(message, StateChanged):
        return f"{message.state}  {message.detail}".rstrip()
    if isinstance(message, Notice):
        return f"{message.level}: {message.text} {message.advice}".rstrip()
    if isinstance(message, Ended):
        code = f" (code {message.code})" if message.code is not None else ""
        return f"ended: {message.reason}, by {message.by or 'unknown'}{code}  {message.detail}".rstrip()
    return message.kind if message.kind in ("connected", "interrupted", "muted", "devices", "echo") else ""


def _open_text(path: Path) -> TextIO:
    return open(
        os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a", encoding="utf-8", errors="replace"
    )


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file in one step, readable by its owner only."""
    beside = path.with_name(path.name + ".new")
    with open(
        os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w", encoding="utf-8", errors="replace"
    ) as file:
        json.dump(data, file, ensure_ascii=False, indent=1, default=str)
        file.write("\n")
    beside.replace(path)
