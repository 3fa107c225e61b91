from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from app.commands import config
from app.parsing import CommandParser
from app.paths import Paths
from app.runtime import open_services
from app.settings import (
    ROWS,
    Settings,
    database_url,
    load_settings,
    machine_zone,
    mask_url,
    read_settings,
    rule_of,
    secret_service,
    value_text,
    variable,
)
from services.errors import UsageError


def written(home: Path, text: str | bytes) -> Paths:
    paths = Paths(home)
    paths.config_dir.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return paths


def refused(paths: Paths, environ: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_settings(paths, environ or {})
    return caught.value


def test_defaults_without_file_and_variables(tmp_path: Path) -> None:
    settings = load_settings(Paths(tmp_path), {"TZ": "Europe/Berlin", "PATH": "/bin"})
    assert settings == Settings(timezone="Europe/Berlin")
    assert (settings.stale_after, settings.daily_sync, settings.list_cache) == (60, "02:00", 60.0)
    assert database_url(settings, Paths(tmp_path)) == f"sqlite:///{tmp_path}/data/callboard.db"


def test_the_environment_beats_the_file_and_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    paths = written(tmp_path, 'stale_after = 5\nascii = true\ndaily_sync = 03:30:00\ntheme = "nord"\n')
    loaded = read_settings(paths, {"CALLBOARD_STALE_AFTER": "7", "CALLBOARD_THEME": ""})
    assert not loaded.problems
    settings = loaded.settings
    assert (settings.stale_after, settings.ascii) == (7, True)
    assert (settings.daily_sync, settings.theme) == ("03:30", "nord")
    assert loaded.origins["stale_after"] == "CALLBOARD_STALE_AFTER"
    assert loaded.origins["theme"] == str(paths.config_file)
    assert loaded.origins["mouse"] == "default"


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("database_url", '"mysql://h/x"', "mysql://h/x"),
        ("timezone", '"Europe"', "Mars/Olympus"),
        ("timezone", '"/etc/passwd"', "../../etc/passwd"),
        ("stale_after", "0", "0"),
        ("stale_after", '"60"', "an hour"),
        ("stale_after", "true", "1.5"),
        ("hourly_sync", "1", "maybe"),
        ("daily_sync", '"25:00"', "2:00"),
        ("secret_store", '"plain"', "none"),
        ("concurrency", "51", "0"),
        ("request_timeout", "nan", "inf"),
        ("request_timeout", "1" + "0" * 400, "-1"),
        ("theme", '" "', " "),
        ("mouse", '"true"', "2"),
        ("log_level", '"loud"', "loud"),
        ("fps", "[1]", "fast"),
    ],
)
def test_wrong_values_are_named_with_file_key_and_what_is_allowed(
    tmp_path: Path, name: str, file: str, text: str
) -> None:
    paths = written(tmp_path, f"# a comment\n{name} = {file}\n")
    error = refused(paths)
    assert f"{paths.config_file}, line 2: {name} is " in error.message
    assert error.message.endswith(f"allowed is {rule_of(name).allowed}")
    assert error.advice
    error = refused(Paths(tmp_path / "none"), {variable(name): text})
    assert error.message.startswith(f"The variable {variable(name)} is ")
    assert rule_of(name).allowed in error.message


def test_what_was_found_is_quoted_and_cannot_move_the_cursor(tmp_path: Path) -> None:
    assert 'is "soon",' in refused(written(tmp_path, 'stale_after = "soon"')).message
    message = refused(written(tmp_path, 'log_level = "a\\u001b[2Jb"')).message
    assert "\x1b" not in message


def test_unknown_names_get_the_nearest_one(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "stale_afer = 5\n"))
    assert "line 1: there is no setting 'stale_afer'" in error.message
    assert "Did you mean stale_after?" in error.advice
    none = Paths(tmp_path / "none")
    assert "Did you mean CALLBOARD_TIMEZONE?" in refused(none, {"CALLBOARD_TIMEZON": "UTC"}).advice
    assert "config show" in refused(none, {"CALLBOARD_ZZZZ": "1"}).advice


def test_variables_that_are_no_settings_are_left_alone(tmp_path: Path) -> None:
    environ = {
        "CALLBOARD_HOME": "x",
        "CALLBOARD_PASSPHRASE": "y",
        "CALLBOARD_OPENAPI_DIR": "z",
        "CALLBOARD_TEST_ANYTHING": "1",
        "CALLBOARD_ALERT_KIND": "system",
    }
    assert not read_settings(Paths(tmp_path), environ).problems


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"mouse = true\nstale_after 5\n", 2),
        (b"mouse = true\n\nname = \xff\n", 3),
        (b"mouse = [\n", 1),
        (b"\x00\x01", 1),
        (b"a = " + b"[" * 5000 + b"]" * 5000, 1),
    ],
)
def test_a_corrupt_file_is_one_message_with_file_and_line(tmp_path: Path, text: bytes, line: int) -> None:
    paths = written(tmp_path, text)
    loaded = read_settings(paths, {})
    assert len(loaded.problems) == 1
    message = loaded.problems[0].message
    assert str(paths.config_file) in message
    assert f"line {line}:" in message
    assert "\n" not in message


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    paths.config_file.mkdir(parents=True)
    assert str(paths.config_file) in refused(paths).message


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "stale_after = 0\nfps = 0\nmouse = 3\n"))
    assert "2 more" in error.message


def test_the_machine_zone_is_a_real_one() -> None:
    from zoneinfo import ZoneInfo

    assert machine_zone({"TZ": ":America/New_York"}) == "America/New_York"
    ZoneInfo(machine_zone({}))
    ZoneInfo(machine_zone({"TZ": "nonsense"}))


PASSWORD = "p:w/@canary"


def test_the_password_of_the_database_never_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"postgresql://op:{PASSWORD}@db.example/callboard?sslpassword=canary2"
    settings = load_settings(Paths(tmp_path), {"CALLBOARD_DATABASE_URL": url})
    assert settings.database_url == url
    shown = [repr(settings), value_text("database_url", url), mask_url(url)]
    shown.append(refused(Paths(tmp_path), {"CALLBOARD_DATABASE_URL": f"oops{url}"}).message)
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path))
    monkeypatch.setenv("CALLBOARD_DATABASE_URL", url)
    assert run_config("show") == 0
    assert run_config("show", "--json") == 0
    shown.append(capsys.readouterr().out)
    assert not [text for text in shown if "canary" in text]
    assert "db.example" in shown[-1]


def test_keys_of_two_homes_or_two_databases_do_not_mix(tmp_path: Path) -> None:
    url = "postgresql://op:one@db/callboard"
    plain, shared = Settings(), Settings(database_url=url)
    homes = [Paths(), Paths(tmp_path), Paths(tmp_path / "b")]
    names = {secret_service(settings, paths) for settings in (plain, shared) for paths in homes}
    assert len(names) == 6
    assert secret_service(plain, Paths()) == "callboard"
    changed = Settings(database_url=url.replace("one", "two"))
    assert secret_service(changed, Paths()) == secret_service(shared, Paths())


def run_config(*words: str) -> int:
    parser = CommandParser()
    config.add_parser(parser.add_subparsers())
    args = parser.parse_args(["config", *words])
    return config.run(args)


def test_the_config_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ROWS:
        monkeypatch.delenv(variable(name), raising=False)
    monkeypatch.setenv("CALLBOARD_HOME", str(tmp_path))
    assert run_config("path") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "config" / "config.toml")
    assert run_config("validate") == 0
    assert "does not exist" in capsys.readouterr().out
    paths = written(tmp_path, "stale_after = 5\n")
    assert run_config("validate") == 0
    assert run_config("show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["stale_after", "5", str(paths.config_file)] in [line.split() for line in lines]
    written(tmp_path, "stale_after = 0\nfpz = 1\n")
    assert run_config("validate", "--json") == 2
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "callboard.config/1"
    assert len(document["problems"]) == 2
    assert run_config("show") == 2
    assert capsys.readouterr().err.count("error:") == 2


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, app.settings, app.paths, app.commands.config;"
        "heavy = {'asyncio', 'httpx', 'textual', 'rich', 'sqlalchemy', 'tomllib', 'difflib', 'keyring'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_breakers_are_as_the_settings_say(tmp_path):
    given = {"FAILURES": "3", "OPEN": "7.5", "TRIALS": "4", "SUCCESSES": "1"}
    environ = {"CALLBOARD_HOME": str(tmp_path)} | {
        f"CALLBOARD_BREAKER_{key}": each for key, each in given.items()
    }
    options = open_services(environ=environ).policies.of("Retell (acme)").breaker.options
    assert (options.failure_threshold, options.open_seconds) == (3, 7.5)
    assert (options.half_open_concurrency, options.success_threshold) == (4, 1)
    with pytest.raises(UsageError, match="CALLBOARD_BREAKER_TRIALS"):
        open_services(environ=environ | {"CALLBOARD_BREAKER_TRIALS": "0"})
