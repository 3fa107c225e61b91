"""Calls in the real console: in a terminal, over ssh, with sound, and with every way in which it may end."""

from __future__ import annotations

import base64
import re
import signal
import subprocess
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.test_ssh import open_over_ssh, wait_for_remote
from tests.e2e.test_terminal import left_as_found, ready, simulator_of
from tests.support.call_console import (
    DOWN,
    ESCAPE,
    RIGHT,
    ask,
    begin,
    database,
    kept_calls,
    say,
    set_script,
    the_call,
    wait_for_event,
)
from tests.support.environment import child_environment
from tests.support.program import CALLBOARD
from tests.support.pulse import PulseServer, alsa_configuration, running_pulse
from tests.support.servers import need, unavailable
from tests.support.sounds import loudness, voice
from tests.support.sshd import running_sshd
from tests.support.terminal import SGR_COLOR, Terminal, wait_all_gone

Open = Callable[..., Terminal]

NO_DEVICES = """\
pcm.gone { type hw card 31 }
pcm.!default { type hw card 31 }
"""
"""An ALSA configuration whose devices are not plugged in: no sound, whatever the machine has."""
ANSWER = "We are open Monday to Friday"
PLAIN_SIGNS = "●╭╮╰╯━┏▸→ƒ│‖█▁"


@pytest.fixture
def open_console(own_environment: Path, tmp_path: Path) -> Iterator[Open]:
    """Opens the demo's console without sound; the test's end ends it."""
    opened: list[Terminal] = []
    (tmp_path / "asound.conf").write_text(NO_DEVICES)
    silent = {"ALSA_CONFIG_PATH": str(tmp_path / "asound.conf"), "PULSE_SERVER": "", "XDG_RUNTIME_DIR": ""}

    def open_it(
        columns: int = 80, rows: int = 24, before: tuple[str, ...] = (), **environment: str
    ) -> Terminal:
        terminal = Terminal(
            [*before, *CALLBOARD],
            child_environment(own_environment, **{**silent, **environment}),
            columns=columns,
            rows=rows,
        )
        opened.append(terminal)
        return terminal

    yield open_it
    for terminal in opened:
        terminal.__exit__()


def talking(terminal: Terminal) -> None:
    """In a call by text, with an answer on the screen."""
    ready(terminal)
    begin(terminal)
    say(terminal, "When are you open?")
    terminal.wait_for(ANSWER)


@pytest.mark.parametrize("vendor", ["retell", "elevenlabs"])
def test_a_call_from_the_key_to_its_replay(open_console, own_environment, vendor):
    terminal = open_console()
    ready(terminal)
    terminal.send(f"/vendor:{vendor}\r")
    terminal.wait_for("12 of 24 agents")
    terminal.wait_gone("enter keep")
    begin(terminal)
    say(terminal, "When are you open?")
    text = terminal.wait_for(ANSWER)
    assert "check_availability(" in text
    terminal.send("x")
    terminal.wait_for("marked")

    terminal.send("/")
    terminal.wait_for("enter keep")
    terminal.send("Friday")
    terminal.wait_for("1 of 1 found")
    terminal.send("\r")
    terminal.wait_gone("enter keep")
    terminal.send(ESCAPE)
    terminal.wait_gone("1 of 1 found")

    terminal.send("e")
    terminal.wait_for("You ended the call")
    terminal.send("2")
    terminal.wait_for("1 call")
    terminal.wait_for("you ended the call")
    terminal.send("\r")
    terminal.wait_for("paused")
    for words in ("When are you open?  typed", "check_availability(", ANSWER, "marked"):
        terminal.wait_for(words)
    terminal.send(" ")
    terminal.wait_for("plays")
    terminal.send(ESCAPE)
    terminal.wait_for("1 call")

    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    assert not terminal.family()
    call = the_call(own_environment)
    assert call.whole()
    assert call.row["reason"] == "operator_ended"
    assert call.row["transport"] == "text"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_call(open_console, own_environment, number):
    terminal = open_console()
    talking(terminal)
    simulator = simulator_of(terminal)
    terminal.signal(number)
    assert terminal.wait_exit() == 128 + number
    left_as_found(terminal)
    wait_all_gone([simulator])
    all_of_it(own_environment)


@pytest.mark.parametrize("key", ["\x03", "\x11"])
def test_quitting_in_a_call(open_console, own_environment, key):
    terminal = open_console()
    talking(terminal)
    terminal.send(key)
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    assert not terminal.family()
    all_of_it(own_environment)


def test_two_calls_at_once(open_console, own_environment):
    """One is left for another, `0` comes back to the newer one, and quitting ends both."""
    terminal = open_console()
    talking(terminal)
    terminal.send("q")
    terminal.wait_for("0 live call")
    assert "● live" in terminal.text().splitlines()[0]
    terminal.send(RIGHT)
    begin(terminal)
    terminal.send("X")
    terminal.wait_for("enter keeps it")
    terminal.send("the second\r")
    terminal.wait_for("mark   the second")
    terminal.send("2")
    terminal.wait_for("2 live")
    terminal.send(f"{DOWN}\r")
    terminal.wait_for(ANSWER)
    terminal.send("10")
    terminal.wait_for("mark   the second")
    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    first, second = kept_calls(own_environment)
    assert first.whole()
    assert ANSWER in first.transcript
    assert second.whole()
    assert "the second" in second.transcript


def test_the_window_is_closed_in_a_call(open_console, own_environment):
    terminal = open_console()
    talking(terminal)
    family = [*terminal.family(), simulator_of(terminal)]
    terminal.hang_up()
    wait_all_gone(family)
    all_of_it(own_environment)


def all_of_it(home: Path) -> None:
    """The call that was cut off is as complete as any other."""
    call = the_call(home)
    assert call.whole()
    assert call.row["reason"] == "operator_ended"
    for words in ("help you today", "When are you open?", "check_availability", ANSWER):
        assert words in call.transcript


def test_the_ssh_client_is_killed_in_a_call(own_environment, tmp_path):
    with running_sshd(tmp_path) as sshd, open_over_ssh(sshd, own_environment) as terminal:
        ready(terminal)
        talking(terminal)
        remote = wait_for_remote(own_environment, 2)
        terminal.process.kill()
        terminal.process.wait()
        wait_all_gone(remote)
    all_of_it(own_environment)


def test_killed_in_a_call(open_console, own_environment):
    """The next start finds it interrupted, with what was said."""
    terminal = open_console()
    talking(terminal)
    wait_for_event(own_environment, ANSWER)
    simulator = simulator_of(terminal)
    terminal.signal(signal.SIGKILL)
    terminal.process.wait()
    wait_all_gone([simulator])
    assert the_call(own_environment).row["state"] == "live"
    with database(own_environment) as connection:  # as if it had happened an hour ago
        connection.execute("UPDATE call_record SET heartbeat_at = heartbeat_at - 3600000")

    again = open_console()
    ready(again)
    again.send("2")
    again.wait_for("the program was stopped")
    again.send("\r")
    again.wait_for("paused")
    for words in ("When are you open?  typed", "check_availability(", ANSWER):
        again.wait_for(words)
    again.send("\x11")
    assert again.wait_exit() == 0
    call = the_call(own_environment)
    assert call.row["reason"] == "interrupted"
    assert call.row["turns"] >= 2
    assert ANSWER in call.transcript


# -- any terminal, no network ----------------------------------------------------------------------


@pytest.fixture
def mirrored(open_console, own_environment) -> Path:
    """A data folder whose mirror has the agents already."""
    terminal = open_console()
    ready(terminal)
    terminal.send("\x11")
    terminal.wait_exit()
    return own_environment


def without_network() -> tuple[str, ...]:
    """Put before a command, it runs without any network, loopback included."""
    (unshare,) = need("unshare")
    words = (unshare, "--user", "--map-current-user", "--net")
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        unavailable("a network of one's own cannot be made here")
    return words


@pytest.mark.parametrize(
    "environment",
    [{}, {"NO_COLOR": "1"}, {"TERM": "dumb", "COLORTERM": ""}, {"CALLBOARD_ASCII": "true"},
     {"TERM": "xterm", "COLORTERM": ""}],
    ids=["all colours", "NO_COLOR", "dumb", "plain characters", "16 colours"],
)  # fmt: skip
def test_a_scripted_call_on_any_terminal_without_network(mirrored, open_console, environment):
    plain = "CALLBOARD_ASCII" in environment or environment.get("TERM") == "dumb"
    live = "* live" if plain else "● live"
    terminal = open_console(before=without_network(), **environment)
    terminal.wait_for("24 agents")
    ask(terminal, "scripted")
    terminal.send("\r")
    terminal.wait_for(lambda text: live in text and "guten Tag!" in text)
    terminal.send("t")
    terminal.wait_for("enter send")
    terminal.send("I need an appointment\r")
    text = terminal.wait_for("Thursday at half past ten")
    assert "check_availability(week=this)" in text
    terminal.send("goodbye\r")
    terminal.wait_for("The agent ended the call")
    if plain:
        assert not [sign for sign in PLAIN_SIGNS if sign in terminal.text()]
    terminal.send("o")
    terminal.wait_for("paused")
    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    raw = terminal.raw()
    if "NO_COLOR" in environment or environment.get("TERM") == "dumb":
        assert not SGR_COLOR.findall(raw)
    if environment.get("TERM") == "xterm":
        assert b"38;2;" not in raw
        assert b"38;5;" not in raw
    call = the_call(mirrored)
    assert call.whole()
    assert call.row["reason"] == "agent_ended"


@pytest.mark.parametrize("way", ["microphone", "webrtc"])
def test_without_sound_the_dialog_offers_text(open_console, own_environment, way):
    terminal = open_console()
    ready(terminal)
    terminal.send("/vendor:elevenlabs\r")
    terminal.wait_for("12 of 24 agents")
    terminal.wait_gone("enter keep")
    text = ask(terminal, way)
    assert "Not available" in text
    assert "microphone" in text.split("Not available")[1]
    terminal.send("\r")
    terminal.wait_for("Text works here")
    assert not kept_calls(own_environment)
    terminal.send(ESCAPE)
    terminal.wait_gone("enter calls")
    begin(terminal)
    terminal.send("e")
    terminal.wait_for("You ended the call")


# -- with sound ------------------------------------------------------------------------------------

RATE = 48_000
BARS = "▂▃▄▅▆▇█"
QUIET = -60
"""dBFS; what is louder was said by somebody."""


@dataclass(frozen=True)
class Desk:
    """Two microphones and two loudspeakers on a server of their own, and what a program needs to see them."""

    pulse: PulseServer
    environment: dict[str, str]


@pytest.fixture
def desk() -> Iterator[Desk]:
    with running_pulse("mic", "speaker", "mic2", "speaker2") as pulse, running_pulse("spare") as spare:
        configuration = pulse.folder / "asound.conf"
        names = [
            ("fake_mic", pulse, "mic.monitor"),
            ("fake_speaker", pulse, "speaker"),
            ("second_mic", pulse, "mic2.monitor"),
            ("second_speaker", pulse, "speaker2"),
        ]
        configuration.write_text(alsa_configuration(names, spare))
        yield Desk(
            pulse,
            {
                "ALSA_CONFIG_PATH": str(configuration),
                "PULSE_SERVER": pulse.address,
                "PULSE_COOKIE": str(pulse.folder / "cookie"),
                "CALLBOARD_INPUT_DEVICE": "fake_mic",
                "CALLBOARD_OUTPUT_DEVICE": "fake_speaker",
            },
        )


def meter(text: str, who: str) -> str:
    """The line of the panel's meter for one side."""
    lines = text.partition("latency by turn")[0].splitlines()
    return next((found[1] for line in lines if (found := re.search(rf" {who}  +([▁-█]{{8,}}.*)", line))), "")


def moving(who: str) -> Callable[[str], bool]:
    return lambda text: bool(set(meter(text, who)) & set(BARS))


def choose_device(terminal: Terminal, side: str, wanted: str) -> None:
    """`side` is microphone or speaker: both lists may have a device of this name."""

    def rows(text: str) -> tuple[list[str], list[str]]:
        """The lines of the dialog, and the names in them."""
        lines = [line.partition("│")[2].partition("│")[0] for line in text.splitlines() if "│" in line]
        return lines, [line.replace("in use", "").strip(" ▸─") for line in lines]

    def listed(text: str) -> bool:
        # The screen may be read while it is drawn: the name may stand in the list above, and not yet here.
        names = rows(text)[1]
        return side in names and wanted in names[names.index(side) :]

    terminal.send("v")
    terminal.wait_for("enter uses it")
    lines, names = rows(terminal.wait_for(listed))
    heading = names.index(side)
    here = next(number for number, line in enumerate(lines) if "▸" in line)
    there = names.index(wanted, heading)
    between = [number for number in range(here + 1, there + 1) if names[number] not in ("", "speaker")]
    terminal.send(DOWN * len(between))
    terminal.wait_for(lambda text: any("▸" in line and wanted in line for line in text.splitlines()))
    terminal.send("\r")
    terminal.wait_gone("enter uses it")
    terminal.wait_for(lambda text: bool(re.search(rf"{side} +{wanted}", text)))


def test_a_call_by_microphone(open_console, own_environment, desk):
    terminal = open_console(120, 40, **desk.environment)
    ready(terminal)
    terminal.send("/vendor:elevenlabs\r")
    terminal.wait_for("12 of 24 agents")
    terminal.wait_gone("enter keep")
    with desk.pulse.recording("speaker2", RATE) as heard:
        begin(terminal, "microphone")
        terminal.wait_for(moving("agent"))
        with desk.pulse.playing("mic", voice(RATE, 60), RATE):
            terminal.wait_for(moving("you"))
            terminal.send("m")
            terminal.wait_for(lambda text: "muted" in meter(text, "you"))
            terminal.send("m")
            terminal.wait_for(lambda text: "dB" in meter(text, "you"))
            terminal.send("p")
            terminal.wait_for("space opens the microphone")
            assert "closed" in meter(terminal.text(), "you")
            terminal.send(" ")
            terminal.wait_for("speak, space closes the microphone")
            terminal.wait_for(lambda text: "dB" in meter(text, "you"))
            terminal.send(" ")
            terminal.wait_for("space opens the microphone")
            choose_device(terminal, "speaker", "second_speaker")
        terminal.send("p")
        terminal.wait_gone("space opens the microphone")
        choose_device(terminal, "microphone", "second_mic")
        terminal.wait_for(lambda text: "silent" in meter(text, "you"))
        with desk.pulse.playing("mic2", voice(RATE, 4), RATE):
            terminal.wait_for(moving("you"))
            before = heard.pcm
            terminal.wait_for(lambda _: loudness(heard.pcm[len(before) :]) > QUIET)
    terminal.resize(80, 24)
    terminal.wait_gone("latency by turn")
    terminal.send("\t")
    with desk.pulse.playing("mic2", voice(RATE, 10), RATE):
        terminal.wait_for(lambda text: "cost  " in text and moving("you")(text))
    terminal.send("e")
    terminal.wait_for("You ended the call")
    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    left_as_found(terminal)
    call = the_call(own_environment)
    assert call.whole()
    assert call.row["has_audio"]
    assert call.row["transport"] == "microphone"
    for track in ("you.wav", "agent.wav"):
        with wave.open(str(call.folder / track)) as file:
            assert loudness(file.readframes(file.getnframes())) > QUIET, track


# -- sizes -----------------------------------------------------------------------------------------

LONG = (
    "Unser Kieferorthopädieaufklärungsgespräch dauert ungefähr dreiundzwanzig Minuten, und danach "
    "besprechen wir in aller Ruhe die verschiedenen Behandlungsmöglichkeiten, die Kostenübernahme durch "
    "die Krankenkasse und den voraussichtlichen Zeitplan bis zum nächsten Frühjahr."
)
WIDE = "青空歯科です。ご予約の変更でしょうか、新しいご予約でしょうか。お名前をお願いいたします。"


def test_sizes(open_console, own_environment):
    terminal = open_console()
    ready(terminal)
    set_script(
        own_environment,
        {"greeting": LONG, "turns": [{"hear": "konnichiwa", "say": WIDE}], "fallback": "Gern."},
    )
    begin(terminal, said="Frühjahr")
    say(terminal, "konnichiwa")
    terminal.wait_for("お願いいたします。")
    for columns, rows in ((140, 40), (80, 24), (100, 30), (140, 40), (80, 24)):
        terminal.resize(columns, rows)
        wide = columns >= 110
        terminal.wait_for(lambda text, wide=wide: ("latency by turn" in text) is wide and words_whole(text))
        terminal.settle()
        text = terminal.text()
        assert words_whole(text), text
        assert len(text.splitlines()) == rows
        assert WIDE in "".join(said_lines(text)), text
    terminal.send("e")
    terminal.wait_for("You ended the call")


def said_lines(text: str) -> list[str]:
    """What stands in the transcript's column of words."""
    lines = []
    for line in text.splitlines():
        told = line[14:].split("│")[0]
        lines.append(told.split("   ")[0].strip())
    return lines


def words_whole(text: str) -> bool:
    return LONG in " ".join(said_lines(text))


# -- what others wrote -----------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b41m\u202e"
"""A title for the terminal, an emptied screen, a colour, and letters from right to left."""


def test_no_control_sequence_of_others_reaches_the_terminal(open_console, own_environment):
    """Neither from words nor from a tool's name, arguments and result; nor by copying, nor in the file."""
    terminal = open_console()
    ready(terminal)
    tool = {
        "name": f"look{EVIL}up",
        "arguments": {f"key{EVIL}": f"value{EVIL}", "deep": {"list": [EVIL]}},
        "result": f"gone{EVIL}there",
    }
    set_script(
        own_environment,
        {"greeting": f"hello{EVIL}", "turns": [{"hear": "tool", "tool": tool, "say": f"said{EVIL}"}]},
    )
    begin(terminal, said="hello")
    say(terminal, "tool")
    terminal.wait_for("said")
    terminal.send("k")
    terminal.send("k")
    terminal.wait_for(lambda text: any(line.startswith("▸") and "look" in line for line in text.splitlines()))
    terminal.send("y")
    terminal.wait_for("Copied this line")
    terminal.send("\x19")
    terminal.wait_for("Copied text")
    terminal.send(ESCAPE)
    terminal.wait_gone("Copied text")
    terminal.send("e")
    terminal.wait_for("You ended the call")
    terminal.send("\x11")
    assert terminal.wait_exit() == 0
    raw = terminal.raw()
    copied = b"".join(base64.b64decode(found) for found in re.findall(rb"\x1b\]52;c;([A-Za-z0-9+/=]+)", raw))
    assert b"look" in copied
    for where in (raw, copied, the_call(own_environment).transcript.encode()):
        assert b"owned\x07" not in where
        assert "\x9b".encode() not in where
        assert "\u202e".encode() not in where
    assert b"\x1b" not in copied
    assert "\x1b" not in the_call(own_environment).transcript
