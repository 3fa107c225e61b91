"""A real PulseAudio of our own with null sinks, and ALSA's names for them, which PortAudio lists.

A null sink swallows what is played to it; its monitor is a source that gives the same. So a sink `mic` that
a test plays into, with `fake_mic` recording its monitor, is a microphone; a sink `speaker` whose monitor the
test records is a loudspeaker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.servers import need, unavailable

PATIENCE = 20.0
SINK_RATE = 48_000
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
ALSA_PLUGIN = "alsa-lib/libasound_module_pcm_pulse.so"


class PulseServer:
    """A running server. `names` are its sinks."""

    def __init__(self, folder: Path, programs: list[str]) -> None:
        self.folder = folder
        self.socket = folder / "native"
        self.log = folder / "log"
        self._pulseaudio, self._pactl, self._pacat = programs
        self._modules: dict[str, str] = {}
        self._environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder / "runtime"),
            "PULSE_STATE_PATH": str(folder / "state"),
            "PULSE_COOKIE": str(folder / "cookie"),
            "PULSE_SERVER": self.address,
            "LC_ALL": "C.UTF-8",
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    def start(self) -> None:
        command = [
            self._pulseaudio,
            *("-n", "--daemonize=no", "--exit-idle-time=-1", "--system=no", "--use-pid-file=no"),
            *("--disable-shm=yes", "--realtime=no", "--high-priority=no"),
            *("-L", f"module-native-protocol-unix socket={self.socket} auth-anonymous=1"),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self.socket.exists() or self._try("info").returncode:
            if self._process.poll() is not None or time.monotonic() > end:
                unavailable(f"PulseAudio does not start here: {self.log.read_text(errors='replace')[-300:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE)
            self._process = None

    def plug(self, sink: str) -> None:
        """Add a null sink, unless it is there. Without rewinds: an idle one would else take 2 s to begin."""
        if sink not in self._modules:
            words = ("load-module", "module-null-sink", f"sink_name={sink}", f"rate={SINK_RATE}")
            self._modules[sink] = self._control(*words, "channels=1", "norewinds=1")

    def unplug(self, *sinks: str) -> None:
        """Remove null sinks. The server moves their streams to another one of its own, if there is one."""
        for sink in sinks:
            self._control("unload-module", self._modules.pop(sink))

    @contextlib.contextmanager
    def looped(self, source: str, sink: str, latency_ms: int = 20) -> Iterator[None]:
        """What comes out of one sink goes into the other: the echo of a room."""
        module = self._control(
            "load-module",
            "module-loopback",
            f"source={source}.monitor",
            f"sink={sink}",
            f"latency_msec={latency_ms}",
        )
        try:
            yield
        finally:
            self._control("unload-module", module)

    def streams(self) -> str:
        """Who plays and records now, as the server lists it."""
        return self._control("list", "short", "sink-inputs") + self._control(
            "list", "short", "source-outputs"
        )

    @contextlib.contextmanager
    def playing(self, sink: str, pcm: bytes, rate: int) -> Iterator[subprocess.Popen[bytes]]:
        """Play mono PCM into a sink, from the beginning of the block."""
        sound = self.folder / f"{sink}-{time.monotonic_ns()}.raw"
        sound.write_bytes(pcm)
        process = subprocess.Popen(
            [self._pacat, "--playback", f"--device={sink}", *_format(rate, 200), str(sound)],
            env=self._environment,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def recording(self, sink: str, rate: int) -> Iterator[Recorded]:
        """What a sink plays, from the beginning of the block to its end."""
        process = subprocess.Popen(
            [self._pacat, "--record", f"--device={sink}.monitor", *_format(rate, 10)],
            env=self._environment,
            stdout=subprocess.PIPE,
        )
        recorded = Recorded(process)
        try:
            recorded.wait_for(1)
            yield recorded
        finally:
            process.kill()
            process.wait()
            recorded.join()

    def _control(self, *words: str) -> str:
        done = self._try(*words)
        assert done.returncode == 0, f"pactl {words}: {done.stderr}"
        return done.stdout.strip()

    def _try(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._pactl, *words],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )


class Recorded:
    """What a recording has so far: pieces with the monotonic second at which each was there."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self._process = process
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def pcm(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)

    def wait_for(self, size: int, limit: float = PATIENCE) -> None:
        end = time.monotonic() + limit
        while sum(len(piece) for _, piece in self.pieces) < size:
            assert time.monotonic() < end, "nothing is recorded"
            time.sleep(0.01)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        number = self._process.stdout.fileno()
        while piece := os.read(number, 65_536):
            self.pieces.append((time.monotonic(), piece))


def _format(rate: int, latency_ms: int) -> list[str]:
    return ["--raw", "--format=s16le", "--channels=1", f"--rate={rate}", f"--latency-msec={latency_ms}"]


@contextlib.contextmanager
def running_pulse(*sinks: str) -> Iterator[PulseServer]:
    """A server with these null sinks. Without PulseAudio the test is skipped, or fails in CI."""
    programs = need("pulseaudio", "pactl", "pacat")
    places = [found for place in LIBRARIES for found in (Path(place), *Path(place).glob("*-linux-*"))]
    if not any((place / ALSA_PLUGIN).exists() for place in places):
        unavailable("ALSA's plugin for PulseAudio is not installed")
    folder = Path(tempfile.mkdtemp(prefix="cb-pulse-"))  # short: a socket's path has a limit
    server = PulseServer(folder, programs)
    try:
        server.start()
        for sink in sinks:
            server.plug(sink)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def alsa_configuration(names: Iterable[tuple[str, PulseServer, str]], default: PulseServer) -> str:
    """ALSA devices: name, server, and the sink or `sink.monitor`. `default` is that server's own default."""
    lines = [
        f'pcm.{name} {{ type pulse server "{server.address}" device "{device}" '
        f'hint {{ show on description "{name}" }} }}'
        for name, server, device in names
    ]
    lines.append(f'pcm.!default {{ type pulse server "{default.address}" }}')
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def fake_devices(desk: PulseServer, spare: PulseServer) -> Iterator[Path]:
    """PortAudio sees `fake_mic` and `fake_speaker` on the desk's server and `default` on the spare one.

    Yields the ALSA configuration, which may be extended. What PortAudio saw before is seen again afterwards.
    """
    from services.calls.audio import devices

    configuration = desk.folder / "asound.conf"
    names = [("fake_mic", desk, "mic.monitor"), ("fake_speaker", desk, "speaker")]
    configuration.write_text(alsa_configuration(names, spare))
    wanted = {
        "ALSA_CONFIG_PATH": str(configuration),
        "PULSE_SERVER": desk.address,
        "PULSE_COOKIE": str(desk.folder / "cookie"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        devices.load()
        devices.refresh()
        yield configuration
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        with contextlib.suppress(Exception):
            devices.refresh()
