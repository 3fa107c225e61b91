"""What goes wrong on real machines: one clear message, the right exit code, nothing lost."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest

from tests.support.mounts import fill, read_only, small_disk
from tests.support.program import Ended, callboard, connect
from tests.support.simulator import running_simulator

CONTROL = "Front\x1b[2J\x1b]0;owned\x07 desk\x00\r\nline two"
RIGHT_TO_LEFT = "\u202eמוקד שירות\u202c لوحة"
EMOJI = "Caf\u00e9 👩\u200d👩\u200d👧 ❤\ufe0f 🏳\ufe0f\u200d🌈"


def one_clear_message(ended: Ended, code: int, *words: str) -> None:
    """One error with advice, no traceback, nothing that is not meant for a person."""
    assert ended.code == code, ended
    lines = [line for line in ended.err.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 1, ended
    assert any(line.strip().startswith("try:") for line in lines), ended
    assert len(lines) <= 4, ended
    for foreign in ("Traceback", 'File "', "sqlalchemy", "sqlite3.", "Errno", "Error:", "Exception"):
        assert foreign not in ended.err, ended
    for word in words:
        assert word.lower() in ended.err.lower(), ended


def database_file(home: Path) -> Path:
    return home / "data" / "callboard.db"


def stored_agents(home: Path) -> list[tuple[str, str]]:
    """What is on the disk, read from a copy: on a full disk SQLite cannot even read."""
    with tempfile.TemporaryDirectory() as folder:
        for file in home.glob("data/callboard.db*"):
            shutil.copy(file, folder)
        connection = sqlite3.connect(Path(folder) / "callboard.db")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(
            "SELECT a.remote_id, b.digest FROM agent a JOIN bundle b ON b.id = a.remote_bundle_id ORDER BY 1"
        ).fetchall()


async def test_read_only_folder_of_a_new_installation(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with read_only(home):
        for words in (("company", "add", "acme"), ("--demo", "sync")):
            one_clear_message(callboard(home, *words), 1, "read-only")


async def test_read_only_disk(own_environment):
    home = own_environment
    async with running_simulator(agents=4) as simulator:
        connect(home, simulator)
        assert callboard(home, "sync").code == 0
        before = stored_agents(home)
        with read_only(home):
            one_clear_message(callboard(home, "sync", "--force"), 1, "read-only")
            one_clear_message(callboard(home, "company", "add", "second"), 1, "read-only")
            listed = callboard(home, "agents", "list", "--json")
            assert listed.code == 0, listed
            assert len(listed.json["agents"]) == 4
        assert callboard(home, "sync", "--force").code == 0
        assert stored_agents(home) == before


async def test_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "12m") as disk:
        home = disk / "home"
        home.mkdir()
        async with running_simulator(agents=6) as simulator:
            connect(home, simulator)
            assert callboard(home, "sync").code == 0
            before = stored_agents(home)
            for agent in await simulator.agents("retell"):
                await simulator.edit(
                    agent["agent_id"], part="agent", voice_id="11labs-Brynne", note="x" * 400_000
                )
            ballast = fill(disk)
            one_clear_message(callboard(home, "sync", "--force"), 1, "full")
            one_clear_message(callboard(home, "company", "add", "second"), 1, "full")
            one_clear_message(callboard(home, "agents", "list"), 1, "full")
            assert stored_agents(home) == before
            ballast.unlink()
            ended = callboard(home, "sync", "--force", "--json")
            assert ended.code == 0, ended
            assert ended.json["counts"]["updated"] == 3
            assert len(stored_agents(home)) == 6


async def test_disk_that_is_full_from_the_start(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill(disk)
        one_clear_message(callboard(disk / "home", "company", "add", "acme"), 1, "full")


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 200, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_corrupt_database(own_environment, content):
    home = own_environment
    file = database_file(home)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    for words in (("agents", "list"), ("sync",), ("company", "list"), ("company", "add", "acme"), ("runs",)):
        one_clear_message(callboard(home, *words), 1, str(file))
    assert file.read_bytes() == content


def test_database_from_a_newer_version(own_environment):
    home = own_environment
    assert callboard(home, "company", "add", "acme").code == 0
    with sqlite3.connect(database_file(home)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.execute("ALTER TABLE company ADD COLUMN colour TEXT DEFAULT 'red'")
    for words in (
        ("company", "add", "second"),
        ("sync",),
        ("agents", "list"),
        ("company", "list"),
        ("runs",),
    ):
        one_clear_message(callboard(home, *words), 1, "newer version", "update")
    with sqlite3.connect(database_file(home)) as connection:
        assert connection.execute("SELECT name, colour FROM company").fetchall() == [("acme", "red")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stale_after = 'often'\n", ("config.toml", "stale_after")),
        ("stale_aftr = 30\n", ("config.toml", "stale_aftr", "stale_after")),
        ("this is not toml [[[\n", ("config.toml", "line 1")),
        ("\udcff\udcfe\n", ("config.toml",)),
    ],
)
def test_corrupt_settings(own_environment, text, words):
    home = own_environment
    file = home / "config" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text, errors="surrogateescape")
    one_clear_message(callboard(home, "agents", "list"), 2, *words)
    assert callboard(home, "--version").code == 0
    assert callboard(home, "--help").code == 0


def test_wrong_variable(own_environment):
    ended = callboard(own_environment, "agents", "list", CALLBOARD_STALE_AFTER="often")
    one_clear_message(ended, 2, "CALLBOARD_STALE_AFTER")


def test_home_that_is_a_file(tmp_path):
    (tmp_path / "home").write_text("not a folder")
    one_clear_message(callboard(tmp_path / "home", "company", "add", "acme"), 2, str(tmp_path / "home"))


async def test_enormous_agent(own_environment):
    """10 MB of prompt are kept to the byte, and do not get in the way of the others."""
    home = own_environment
    prompt = "Be kind. \u00e9\u4e16 " * 900_000
    async with running_simulator(agents=4) as simulator:
        big = (await simulator.agents("elevenlabs"))[0]["agent_id"]
        await simulator.edit(big, conversation_config={"agent": {"prompt": {"prompt": prompt}}})
        connect(home, simulator)
        ended = callboard(home, "sync", "--json")
        assert ended.code == 0, ended
        assert ended.json["counts"]["created"] == 4
        raw = callboard(home, "agents", "show", big, "--raw")
        assert raw.code == 0
        assert len(raw.out) > 10_000_000
        shown = callboard(home, "agents", "show", big)
        assert shown.code == 0
        assert len(shown.out) < 100_000


async def test_names_from_hell(own_environment):
    """What a terminal could be harmed with is stored as it came and never printed."""
    home = own_environment
    names = [CONTROL, RIGHT_TO_LEFT, EMOJI, "x" * 5000, " ", "\ud800 lone"]
    async with running_simulator(agents=2 * len(names)) as simulator:
        for vendor, field in (("retell", "agent_name"), ("elevenlabs", "name")):
            for agent, name in zip(await simulator.agents(vendor), names, strict=True):
                await simulator.edit(agent["agent_id"], part="agent", **{field: name})
        connect(home, simulator)
        synced = callboard(home, "sync", "--verbose")
        assert synced.code == 0, synced
        listed = callboard(home, "agents", "list")
        assert listed.code == 0, listed
        for text in (synced.out, synced.err, listed.out, listed.err):
            assert not [
                c for c in text if (c < " " and c not in "\n\t") or c in "\x7f\x9b\u202e\u2066\ufe0f\u200b"
            ]
        agents = callboard(home, "agents", "list", "--json").json["agents"]
        assert len(agents) == 2 * len(names)
        for agent in agents:
            assert callboard(home, "agents", "show", agent["agent_id"]).code == 0
        assert callboard(home, "sync", "--force", "--json").json["counts"]["unchanged"] == 2 * len(names)


async def test_partial_failure_is_told_apart(own_environment):
    home = own_environment
    async with running_simulator(agents=6) as simulator:
        connect(home, simulator)
        broken = (await simulator.agents("retell"))[0]
        await simulator.fault(f"500:{broken['agent_id']}")
        ended = callboard(home, "sync", "--json", CALLBOARD_REQUEST_TIMEOUT="5")
        assert ended.code == 3, ended
        assert ended.json["counts"] | {"created": 5, "failed": 1} == ended.json["counts"]
        (failed,) = [agent for agent in ended.json["agents"] if agent["outcome"] == "failed"]
        assert failed["agent_id"] == broken["agent_id"]
        assert failed["error"]["advice"]
        await simulator.clear_faults()
        assert callboard(home, "sync").code == 0


async def test_vendor_that_answers_nonsense(own_environment):
    home = own_environment
    cases = {
        "revoke": (5, "key"),
        "permission": (5, "permission"),
        "html:list": (1, "page"),
        "shape:list": (1, ""),
        "truncate:list": (1, ""),
    }
    async with running_simulator(agents=4) as simulator:
        connect(home, simulator)
        assert callboard(home, "sync").code == 0
        before = stored_agents(home)
        for fault, (code, word) in cases.items():
            await simulator.fault(fault)
            ended = callboard(home, "sync", "--force", "--json")
            assert ended.code == code, (fault, ended)
            assert "Traceback" not in ended.err
            errors = [failed["error"] for failed in ended.json["connections_failed"]]
            assert len(errors) == 2
            assert all(error["advice"] and word in error["message"].lower() for error in errors), (
                fault,
                errors,
            )
            assert stored_agents(home) == before
            await simulator.clear_faults()


def test_not_a_terminal(own_environment):
    one_clear_message(callboard(own_environment), 2, "terminal")
