"""`callboard call` without a screen: what it prints, what it sends, and the code it ends with."""

from __future__ import annotations

import contextlib
import json
import socket
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.calls.wave_file import read_track
from services.errors import ServiceError
from services.simulator import ACCOUNT_SID
from services.simulator.speech import resample
from tests.support.headless import Run, Town, complete, database, headless, only_call, town
from tests.support.sounds import likeness, speech_like


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town"), agents=16) as made:
        yield made


@pytest.fixture
def vendors(simulated: Town) -> Town:
    simulated.clear()
    return simulated


@pytest.fixture
def run(vendors: Town, monkeypatch, capsys) -> Run:
    return headless(vendors.home, monkeypatch, capsys)


HOURS = {"hear": "open", "say": "We open at eight."}
BYE = {"hear": "bye", "say": "Goodbye.", "end": True}


def said(conversation) -> list[tuple[str, str]]:
    return [(line["role"], line["text"]) for line in conversation["transcript"] if line["text"]]


# Lines in, lines out


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
def test_lines_are_said_in_turn_and_the_end_of_the_input_ends_the_call(vendor, run, vendors):
    agent = getattr(vendors, vendor)[0]
    vendors.script(agent, greeting="Hello, Desk here.", turns=[HOURS], fallback=["Once more?"])
    told = run("call", agent, "--transport", "text", stdin="When are you open?\n\nMumble\n")
    assert told.code == 0, told.err
    spoken = [line.split("  ", 1)[1].split("  (")[0] for line in told.out.splitlines()]
    spoken = [line for line in spoken if not line.startswith("note")]
    # Three words stand in a line: agent and you in turn, although the input was there at once.
    assert [" ".join(line.split()).rsplit(" (", 1)[0] for line in spoken] == [
        "agent Hello, Desk here.",
        "you When are you open?",
        "agent We open at eight.",
        "you Mumble",
        "agent Once more?",
    ]
    assert "script is finished: everything was said" in told.err
    row = only_call(vendors.home)
    assert (row["reason"], row["transport"], row["turns"]) == ("completed", "text", 3)
    assert complete(Path(row["folder"]))


def test_what_is_to_be_said_may_stand_in_the_command(run, vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.", turns=[HOURS, BYE])
    told = run("call", agent, "--transport", "text", "--say", "Are you open?", "--say", "bye")
    assert told.code == 0, told.err
    assert "The agent ended the call" in told.err
    (talk,) = vendors.conversations(agent)[-1:]
    assert said(talk) == [
        ("agent", "Hello."),
        ("user", "Are you open?"),
        ("agent", "We open at eight."),
        ("user", "bye"),
        ("agent", "Goodbye."),
    ]


def test_words_with_a_slash_do_what_the_keys_do(run, vendors):
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="Hello.", turns=[HOURS])
    typed = "/inform The customer is a VIP.\n/mark here\nopen?\n/end\nnever said\n"
    told = run("call", agent, "--transport", "text", "--json", stdin=typed)
    assert told.code == 0, told.err
    assert told.summary["reason"] == "operator_ended"
    kinds = {line["kind"]: line for line in told.lines}
    assert kinds["informed"]["text"] == "The customer is a VIP."
    assert kinds["marked"]["note"] == "here"
    (talk,) = vendors.conversations(agent)[-1:]
    assert talk["context"] == ["The customer is a VIP."]
    assert "never said" not in [text for _, text in said(talk)]


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
def test_every_line_of_json_is_an_event_and_the_last_one_the_summary(vendor, run, vendors):
    agent = getattr(vendors, vendor)[1]
    vendors.script(agent, greeting="Hello.", turns=[HOURS, BYE])
    told = run("call", agent, "--transport", "text", "--json", stdin="Open?\nbye\n")
    kinds = [line["kind"] for line in told.lines]
    assert kinds[0] == "call"
    assert kinds[-1] == "summary"
    assert (kinds.count("call"), kinds.count("summary"), kinds.count("ended")) == (1, 1, 1)
    assert len({line["call"] for line in told.lines}) == 1
    summary = told.summary
    assert (summary["reason"], summary["exit_code"], summary["turns"]) == ("agent_ended", 0, 3)
    folder = Path(summary["folder"])
    kept = [{key: line[key] for key in line if key not in ("schema", "call")} for line in told.lines[1:-1]]
    assert kept == complete(folder)


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
@pytest.mark.parametrize("how", ["words", "lines"])
def test_a_line_that_the_limits_refuse_ends_a_scripted_call(vendor, how, run, vendors, monkeypatch):
    """Without it the rest would be another conversation, and a call that looks as if all had been said."""
    monkeypatch.setenv("CALLBOARD_LIMIT_HOUR", "2")
    agent = getattr(vendors, vendor)[0]
    vendors.script(agent, greeting="Hello.", turns=[HOURS], fallback=["Once more?"])
    if how == "words":
        told = run("call", agent, "--transport", "text", "--json", "--say", "open?", "--say", "Second")
    else:
        told = run("call", agent, "--transport", "text", "--json", stdin="open?\nSecond\nThird\n")
    assert told.code == 1
    assert "has used up what it may ask within one hour; room again in 60 min" in told.err
    assert "raise limit_hour in the settings" in told.err
    assert (told.summary["reason"], told.summary["exit_code"]) == ("limit", 1)
    typed = [line["text"] for line in told.lines if line["kind"] == "typed"]
    assert typed == ["open?"]


def test_a_suite_for_which_there_is_no_room_today_is_not_waited_for(run, vendors, monkeypatch):
    monkeypatch.setenv("CALLBOARD_LIMIT_DAY", "1")
    agent = vendors.retell[0]
    suite = vendors.home / "suite.yaml"
    suite.write_text('name: Desk\ntests: [{name: Hours, steps: [{say: "open?"}]}]\n')
    told = run("scenarios", "run", str(suite), "--agent", agent)
    assert told.code == 1
    assert "this account has used up what it may ask within one day" in told.out
    assert "raise limit_day in the settings" in told.out


def test_a_script_without_a_network(run, vendors, tmp_path):
    file = tmp_path / "desk.yaml"
    file.write_text(MOCK)
    told = run("call", "--scenario", str(file), "--json", stdin="I need a slot\n")
    assert told.code == 0, told.err
    assert told.summary["reason"] == "agent_ended"
    texts = [line["text"] for line in told.lines if line["kind"] == "agent" and line.get("final", True)]
    assert texts == ["Hello, how can I help?", "Ten o'clock, then. Goodbye."]
    assert vendors.conversations() == []


MOCK = """\
name: desk
answers:
  - when: "slot"
    steps: [{agent: "Ten o'clock, then. Goodbye."}, {end: agent}]
steps:
  - agent: "Hello, how can I help?"
  - listen: true
"""


# Exit codes


def test_an_agent_nobody_knows(run):
    told = run("call", "Nobody's desk", "--transport", "text")
    assert told.code == 2
    assert "Nobody's desk" in told.err
    assert told.out == ""


def test_a_key_the_vendor_refuses(run, vendors):
    for vendor, agent in (("elevenlabs", vendors.elevenlabs[0]), ("retell", vendors.retell[0])):
        words = ("connection", "rotate", "acme", vendor, "--key-stdin", "--no-test")
        assert run(*words, stdin="sk_wrong_key_canary").code == 0
        told = run("call", agent, "--transport", "text", "--json")
        assert (told.code, told.summary["reason"]) == (5, "authentication"), told
        assert "canary" not in told.out + told.err
        complete(Path(told.summary["folder"]))


def greeting(agent: str, text: str, vendors: Town) -> None:
    allowed = {"conversation_config_override": {"conversation": {"text_only": True}}}
    config = {
        "conversation_config": {"agent": {"first_message": text}},
        "platform_settings": {"overrides": allowed},
    }
    vendors.control("POST", f"/__agents/{agent}/edit", {"part": "agent", "set": config})


def overrides(agent: str, allowed: bool, vendors: Town) -> None:
    fields = {"agent": {"language": allowed}, "conversation": {"text_only": True}}
    settings = {"overrides": {"conversation_config_override": fields}}
    vendors.control(
        "POST", f"/__agents/{agent}/edit", {"part": "agent", "set": {"platform_settings": settings}}
    )


def test_a_brief_that_would_be_refused(run, vendors, tmp_path):
    agent = vendors.elevenlabs[5]
    overrides(agent, False, vendors)
    run("sync", "--force")
    brief = tmp_path / "brief.yaml"
    brief.write_text("language: fr\n")
    words = ("call", agent, "--transport", "text", "--brief", str(brief))
    checked = run(*words, "--check", "--json")
    assert checked.code == 4
    assert checked.json["refused"]
    told = run(*words)
    assert told.code == 4
    assert "language" in told.err
    assert run("calls", "list", "--json").json["calls"] == []
    assert vendors.conversations(agent) == []

    anyway = run(*words, "--anyway", "--json")
    assert (anyway.code, anyway.summary["reason"]) == (4, "override_refused")
    assert "language" in anyway.summary["detail"]

    overrides(agent, True, vendors)
    run("sync", "--force")
    assert run(*words, "--json", stdin="Bonjour\n").code == 0
    initiation = vendors.conversations(agent)[-1]["initiation"]
    assert initiation["conversation_config_override"]["agent"]["language"] == "fr"


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        ("+15005550007", 4, "busy"),
        ("+15005550008", 4, "no_answer"),
        ("+15005550001", 2, "invalid_number"),
        ("+15005550009", 1, "unreachable"),
    ],
)
def test_how_a_phone_call_ends_is_the_exit_code(vendor, number, code, reason, run, vendors, fast_phone):
    agent = fast_phone(vendor)
    told = run("call", agent, "--to", number, "--yes", "--json")
    assert (told.code, told.summary["reason"]) == (code, reason), told
    assert only_call(vendors.home)["number"] == number
    complete(Path(told.summary["folder"]))


@pytest.fixture
def fast_phone(run, vendors, monkeypatch):
    """The telephone network in a hurry, with access to the Twilio account; gives an agent with a number."""
    monkeypatch.setattr("services.calls.transports.phone.FIND_WAITS", (0.0, 0.05))
    vendors.control("POST", "/__phone", {"speed": 100})
    words = ("phone", "set", "acme", ACCOUNT_SID, "--base-url", vendors.simulator.twilio_url, "--key-stdin")
    assert run(*words, stdin=vendors.simulator.key).code == 0
    return lambda vendor: getattr(vendors, vendor)[0]


@pytest.mark.parametrize("number", ["12345", "+0", "hello", "+49301234567890123"])
def test_what_is_no_number_dials_nothing(number, run, vendors):
    told = run("call", vendors.retell[0], "--to", number, "--yes")
    assert told.code == 2, told.err
    assert run("calls", "list", "--json").json["calls"] == []


def test_a_number_is_dialled_only_after_a_yes(run, vendors):
    told = run("call", vendors.retell[0], "--to", "+4930901820")
    assert told.code == 2
    assert "--yes" in told.err
    assert run("call", vendors.retell[0], "--transport", "phone").code == 2
    assert vendors.conversations() == []


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
def test_an_order_without_an_answer_is_never_sent_again(vendor, run, vendors, fast_phone, monkeypatch):
    monkeypatch.setattr("services.calls.telephony.vendors.TIMEOUT", 1.0)
    agent = fast_phone(vendor)
    orders = {"retell": "/v2/create-phone-call", "elevenlabs": "/v1/convai/twilio/outbound-call"}
    vendors.control("POST", "/__stats/reset")
    vendors.fault(f"hang:{vendor}:call")
    told = run("call", agent, "--to", "+4930901820", "--yes", "--json")
    assert (told.code, told.summary["reason"]) == (3, "maybe_placed"), told
    assert only_call(vendors.home)["intent"]
    routes = vendors.control("GET", "/__stats")[vendor]["by_route"]
    assert routes[f"POST {orders[vendor]}"] == 1


@pytest.mark.parametrize("vendor", ["elevenlabs", "retell"])
def test_a_vendor_that_is_not_there(vendor, run, vendors):
    with _closed_port() as port:
        words = ("connection", "add", "gone", vendor, "--base-url", f"http://127.0.0.1:{port}", "--no-test")
        assert run("company", "add", "gone").code == 0
        assert run(*words, "--key-stdin", stdin="key_123456789012345678").code == 0
        agent = getattr(vendors, vendor)[0]
        with contextlib.closing(database(vendors.home)) as connection, connection:
            connection.execute(
                "UPDATE agent SET connection_id = (SELECT max(id) FROM connection) WHERE remote_id = ?",
                (agent,),
            )
        told = run("call", agent, "--transport", "text", "--json")
    assert (told.code, told.summary["reason"]) == (1, "unreachable"), told
    complete(Path(told.summary["folder"]))


@contextlib.contextmanager
def _closed_port() -> Iterator[int]:
    """A port on loopback that is taken, and where nobody answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize(
    ("hang", "reason"),
    [
        ({"how": "crash"}, "connection_lost"),
        ({"how": "huge"}, "protocol_error"),
        ({"how": "close", "code": 1011}, "vendor_error"),
    ],
    ids=lambda value: value["how"] if isinstance(value, dict) else value,
)
def test_a_server_that_breaks_in_the_middle(hang, reason, run, vendors):
    agent = vendors.elevenlabs[0]
    breaks = {"hear": "open", "say": "We open", "hang": hang}
    vendors.script(agent, greeting="Hello.", turns=[breaks])
    told = run("call", agent, "--transport", "text", "--json", stdin="Open?\nAnd now?\n")
    assert told.code == 1
    assert told.summary["reason"] == reason
    texts = [each["text"] for each in complete(Path(told.summary["folder"])) if each["kind"] == "agent"]
    assert texts[0] == "Hello."
    assert "We open" in texts


# Tools, variables, files


TOOLS = '''\
import asyncio

def book_appointment(arguments):
    """Books."""
    return {"booked": arguments["slot_id"], "n": 0}

async def later(arguments):
    await asyncio.sleep(0)
    return None

def broken(arguments):
    raise ValueError("no slot \\x1b[2J left")

def _private(arguments):
    return "never"
'''


def client_tool(name: str, arguments: dict[str, object]) -> dict[str, object]:
    tool = {"name": name, "where": "client", "arguments": arguments, "on_error": "It failed."}
    return {"hear": name, "tool": tool, "say": "Got {result}."}


def test_an_agent_calls_the_operators_functions(run, vendors, tmp_path):
    file = tmp_path / "tools.py"
    file.write_text(TOOLS)
    agent = vendors.elevenlabs[0]
    names = [("book_appointment", {"slot_id": "s1"}), ("later", {}), ("broken", {}), ("_private", {})]
    vendors.script(agent, greeting="Hello.", turns=[client_tool(*each) for each in names])
    typed = "".join(f"{name}\n" for name, _ in names)
    told = run("call", agent, "--transport", "text", "--tools", str(file), "--json", stdin=typed)
    assert told.code == 0, told.err
    ended = [line for line in told.lines if line["kind"] == "tool_ended"]
    assert [json.loads(line["result"]) for line in ended[:2]] == [{"booked": "s1", "n": 0}, None]
    assert [line.get("ok", True) for line in ended] == [True, True, False, False]
    assert "no slot" in ended[2]["result"]
    talk = vendors.conversations(agent)[-1]
    answers = [text for role, text in said(talk) if role == "agent"]
    assert answers[1:] == ['Got {"booked": "s1", "n": 0}.', "Got null.", "It failed.", "It failed."]
    assert "\x1b" not in told.out


@pytest.mark.parametrize(
    ("option", "name", "content", "cause"),
    [
        ("--tools", "tools.py", None, "no Python file"),
        ("--tools", "tools.py", "def broken(:\n", "SyntaxError"),
        ("--tools", "tools.py", "import no_such_module_at_all\n", "no_such_module_at_all"),
        ("--tools", "tools.py", "ANSWER = 42\n", "defines no function"),
        ("--brief", "brief.yaml", None, "brief.yaml"),
        ("--brief", "brief.yaml", "language: [\n", "brief.yaml"),
        ("--brief", "brief.yaml", "languag: fr\n", "languag"),
        ("--brief", "brief.yaml", "\x00\xff\n", "brief.yaml"),
        ("--scenario", "desk.yaml", None, "desk.yaml"),
        ("--scenario", "desk.yaml", "steps: [{agnet: Hello}]\n", "a step has one of the keys"),
        ("--play", "voice.wav", None, "voice.wav"),
        ("--play", "voice.wav", "no sound at all", "voice.wav"),
        ("--play", "voice.wav", "", "voice.wav"),
    ],
)
def test_a_wrong_file_is_one_message_and_calls_nobody(option, name, content, cause, run, vendors, tmp_path):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    kind = {"--scenario": "mock", "--play": "microphone"}.get(option, "text")
    agent = () if kind == "mock" else (vendors.elevenlabs[0],)
    told = run("call", *agent, "--transport", kind, option, str(file))
    assert told.code == 2, told
    assert told.err.count("error:") == 1
    assert cause in told.err
    assert told.out == ""
    assert run("calls", "list", "--json").json["calls"] == []
    assert vendors.conversations() == []


@pytest.mark.parametrize("variable", ["nonsense", "=value", " =value"])
def test_a_variable_without_a_name(variable, run, vendors):
    told = run("call", vendors.elevenlabs[0], "--transport", "text", "--var", variable)
    assert told.code == 2
    assert "NAME=VALUE" in told.err


@pytest.mark.parametrize("limit", ["0", "-1", "nan"])
def test_a_call_is_not_limited_to_nothing(limit, run, vendors):
    told = run("call", vendors.elevenlabs[0], "--transport", "text", "--max-seconds", limit)
    assert told.code == 2


def test_variables_fill_what_the_agent_says(run, vendors):
    agent = vendors.elevenlabs[6]
    greeting(agent, "Hello {{customer}}!", vendors)
    run("sync", "--force")
    words = ("call", agent, "--transport", "text", "--json", "--var", "customer=Zoë = Ada")
    told = run(*words)
    assert told.code == 0, told.err
    assert "Hello Zoë = Ada!" in [line.get("text") for line in told.lines]
    assert vendors.conversations(agent)[-1]["initiation"]["dynamic_variables"] == {"customer": "Zoë = Ada"}


def test_a_variable_that_is_missing(run, vendors):
    agent = vendors.elevenlabs[7]
    greeting(agent, "Hello {{customer}}!", vendors)
    told = run("call", agent, "--transport", "text", "--json")
    assert (told.code, told.summary["reason"]) == (4, "missing_variable")
    assert "customer" in told.summary["detail"]


# Devices


@pytest.fixture
def no_devices(monkeypatch):
    import services.calls.audio.devices as devices

    monkeypatch.setattr(devices, "list_devices", list)
    monkeypatch.setattr(
        devices, "audio_problem", lambda *_: ServiceError("No microphone", advice="Use --transport text")
    )


@pytest.mark.parametrize("kind", ["microphone", "webrtc"])
def test_without_devices_the_text_transport_is_named(kind, run, vendors, no_devices):
    told = run("call", vendors.elevenlabs[0], "--transport", kind)
    assert told.code == 1
    assert "No microphone" in told.err
    assert "--transport text" in told.err
    assert run("calls", "list", "--json").json["calls"] == []
    listed = run("call", "--list-devices")
    assert listed.code == 1
    assert "No microphone" in listed.err


def test_without_devices_a_call_is_typed_unless_something_else_is_said(run, vendors, no_devices):
    vendors.script(vendors.elevenlabs[0], greeting="Hello.")
    told = run("call", vendors.elevenlabs[0])
    assert told.code == 0, told.err
    assert "over text" in told.err


def test_a_spoken_call_needs_no_devices(run, vendors, no_devices, tmp_path):
    """A file is the microphone: it is heard, and what comes back is recorded."""
    agent = vendors.elevenlabs[0]
    vendors.script(agent, greeting="", turns=[{"heard": "Are you open?", "say": "Goodbye.", "end": True}])
    file = tmp_path / "voice.wav"
    mono = speech_like(44_100, 0.6)
    with wave.open(str(file), "wb") as sound:
        sound.setparams((2, 2, 44_100, 0, "NONE", ""))
        sound.writeframes(b"".join(mono[at : at + 2] * 2 for at in range(0, len(mono), 2)))
    told = run("call", agent, "--transport", "microphone", "--play", str(file), "--json")
    assert (told.code, told.summary["reason"]) == (0, "agent_ended"), told
    assert ("user", "Are you open?") in said(vendors.conversations(agent)[-1])
    row = only_call(vendors.home)
    assert row["has_audio"]
    pcm, rate = read_track(Path(row["folder"]) / "you.wav")
    assert likeness(resample(mono, 44_100, rate), pcm) > 0.9


# What an agent may send


HOSTILE = "A\x1b[2J\x1b]0;gotcha\x07\u202eevil\u2066\u200b\r\x00\x9b31mB"


@pytest.mark.parametrize("json_lines", [True, False])
def test_nothing_an_agent_says_reaches_the_terminal_raw(json_lines, run, vendors):
    agent = vendors.elevenlabs[0]
    tool = {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}, "result": HOSTILE}
    vendors.script(agent, greeting=HOSTILE, turns=[{"hear": ".", "tool": tool, "say": HOSTILE}])
    told = run("call", agent, "--transport", "text", *(["--json"] if json_lines else []), stdin="Hello\n")
    assert told.code == 0, told.err
    for stream in (told.out, told.err):
        assert not set(stream) & set("\x1b\x07\x00\r\x9b\u202e\u2066\u200b"), repr(stream)
    assert "gotcha" in told.out
    if json_lines:
        assert told.summary["turns"] == 2
    shown = run("calls", "show", only_call(vendors.home)["id"])
    assert not set(shown.out) & set("\x1b\x07\x00\r\x9b\u202e\u2066\u200b")


def test_ten_megabytes_of_partials(run, vendors):
    agent = vendors.elevenlabs[0]
    part = {"type": "agent_chat_response_part", "text_response_part": {"text": "x\x1b" * 500_000}}
    part["text_response_part"].update(type="delta", event_id=7)
    vendors.script(agent, greeting="Hello.", frames=[part] * 10, turns=[BYE])
    told = run("call", agent, "--transport", "text", stdin="bye\n")
    assert told.code == 0, told.err
    assert "\x1b" not in told.out
    assert "Goodbye." in told.out
