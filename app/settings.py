"""The settings: one table (the fields of `Settings`) that parses, explains and lists them.

A value comes from `CALLBOARD_<NAME>` in the environment, else from `config.toml`, else from the
default. An empty variable counts as not set. Keys in the file are the field names, without tables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from app.paths import HOME_VARIABLE, Paths
from app.settings_rules import (
    Rule,
    flag,
    is_database,
    is_redis,
    is_zone,
    one_of,
    seconds,
    text,
    time_of_day,
    whole,
)
from services.errors import UsageError
from services.text import clean_line

PREFIX = "CALLBOARD_"
PASSPHRASE_VARIABLE = "CALLBOARD_PASSPHRASE"  # noqa: S105 - the name of a variable, not a secret
TOKEN_VARIABLE = "CALLBOARD_API_TOKEN"  # noqa: S105 - the name of a variable, not a secret
IN_FILE = "_FILE"
"""`CALLBOARD_PASSPHRASE_FILE` names a file that holds what `CALLBOARD_PASSPHRASE` would."""
OTHER_VARIABLES = frozenset(
    {
        HOME_VARIABLE,
        PASSPHRASE_VARIABLE,
        PASSPHRASE_VARIABLE + IN_FILE,
        TOKEN_VARIABLE,
        TOKEN_VARIABLE + IN_FILE,
        "CALLBOARD_OPENAPI_DIR",
    }
)
FOREIGN_PREFIXES = ("CALLBOARD_TEST_", "CALLBOARD_ALERT_")
"""Of tests, and of the commands that are run for an alert: such a command may well run `callboard`."""

# -- the table ------------------------------------------------------------------------------------


def _setting(default: object, rule: Rule, explain: str, *, masked: bool = False, shown: str = "") -> Any:
    """One row of the table. `shown` says what a default of None means."""
    return field(
        default=default,
        repr=not masked,
        metadata={"rule": rule, "help": explain, "masked": masked, "shown": shown},
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its value. Seconds and minutes are named in each row's help."""

    database_url: str | None = _setting(
        None,
        text("a URL that begins with sqlite:// or postgresql://", is_database),
        "Where the mirror is stored; PostgreSQL when several people share it.",
        masked=True,
        shown="an SQLite file in the data directory",
    )
    timezone: str = _setting(
        "",
        text("a zone of the time zone database such as Europe/Berlin", is_zone),
        "The zone of the daily sync and of the times on screen.",
        shown="this machine's zone",
    )
    stale_after: int = _setting(
        60, whole(1, unit="minutes"), "Minutes after which an agent counts as stale and is read again."
    )
    hourly_sync: bool = _setting(True, flag(), "Sync what is stale once an hour.")
    daily_sync: str = _setting("02:00", time_of_day(), "When everything is read again each day.")
    secret_store: str = _setting(
        "auto", one_of("auto", "keyring", "file"), "Where keys are kept; auto takes the keyring if it works."
    )
    concurrency: int | None = _setting(
        None,
        whole(1, 50),
        "Requests in flight for one connection.",
        shown="each vendor's own limit",
    )
    request_timeout: float = _setting(30.0, seconds(1, 600), "Seconds until a request is given up.")
    list_cache: float = _setting(60.0, seconds(0, 3600), "Seconds for which lists from a vendor are reused.")
    metrics_cache: float = _setting(30.0, seconds(0, 3600), "Seconds for which vendor metrics are reused.")
    calls_keep_days: int | None = _setting(
        None, whole(1, 3650, unit="days"), "Days after which recordings of calls are deleted.", shown="kept"
    )
    messages_keep_days: int = _setting(
        90,
        whole(0, 3650, unit="days"),
        "Days after which texts of messages are deleted, unless a company has its own; 0 keeps them.",
    )
    input_device: str = _setting(
        "", text("a part of a device's name", bool), "The microphone of calls.", shown="the system's"
    )
    output_device: str = _setting(
        "", text("a part of a device's name", bool), "The loudspeaker of calls.", shown="the system's"
    )
    echo_cancellation: bool = _setting(True, flag(), "Keep the agent's voice out of the microphone.")
    client_tools: str = _setting(
        "",
        text("the path of a Python file", bool),
        "The file whose public functions agents may call as client tools.",
        shown="none",
    )
    redis_url: str | None = _setting(
        None,
        text("a URL that begins with redis://, rediss:// or unix://", is_redis),
        "Where limits and breakers are shared between processes.",
        masked=True,
        shown="each process counts for itself",
    )
    limit_minute: int = _setting(60, whole(0), "Requests a minute of one account, agent or user; 0 for any.")
    limit_hour: int = _setting(1_000, whole(0), "Requests an hour of each; 0 for any.")
    limit_day: int = _setting(10_000, whole(0), "Requests a day of each; 0 for any.")
    limit_burst: int = _setting(10, whole(0), "Requests within one second of each; 0 for any.")
    breaker_failures: int = _setting(
        5, whole(1, 1_000), "Failed calls in a row after which a breaker opens, unless health says so first."
    )
    breaker_open: float = _setting(
        30.0, seconds(1, 3600), "Seconds for which an open breaker refuses every call."
    )
    breaker_trials: int = _setting(
        1, whole(1, 100), "Calls let through at the same time to try whether all is well again (half open)."
    )
    breaker_successes: int = _setting(
        2, whole(1, 100), "Such calls in a row that must succeed until the breaker is closed."
    )
    health: bool = _setting(True, flag(), "Check what the agents depend on, all the time.")
    health_interval: float = _setting(30.0, seconds(1, 3600), "Seconds between two checks of one thing.")
    health_failures: int = _setting(
        2, whole(1, 100), "Failed checks in a row after which something counts as down."
    )
    theme: str = _setting(
        "textual-dark",
        text("the name of a theme", bool),
        "The console's colours; the palette lists the names.",
    )
    ascii: bool = _setting(False, flag(), "Draw with plain characters only.")
    mouse: bool = _setting(True, flag(), "Let the console use the mouse.")
    log_level: str = _setting(
        "info", one_of("debug", "info", "warning", "error"), "What the log file records."
    )
    fps: int | None = _setting(None, whole(1, 120), "Frames a second at most.", shown="60, and 15 over SSH")


ROWS: dict[str, Field[Any]] = {row.name: row for row in fields(Settings)}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def rule_of(name: str) -> Rule:
    rule: Rule = ROWS[name].metadata["rule"]
    return rule


def explain(name: str) -> str:
    """The setting's help sentence."""
    return str(ROWS[name].metadata["help"])


# -- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, where each value came from, and everything wrong with what was read."""

    settings: Settings
    origins: dict[str, str]
    problems: tuple[UsageError, ...]


def load_settings(paths: Paths, environ: Mapping[str, str]) -> Settings:
    """The settings in force. Raises UsageError for the first thing wrong, counting the others."""
    loaded = read_settings(paths, environ)
    if loaded.problems:
        first, *more = loaded.problems
        if more:
            first = UsageError(
                f"{first.message} (and {len(more)} more: `callboard config validate` lists them)",
                advice=first.advice,
                code=first.code,
            )
        raise first
    return loaded.settings


def read_settings(paths: Paths, environ: Mapping[str, str]) -> Loaded:
    """Read the file and the environment without giving up at the first mistake."""
    values: dict[str, object] = {}
    origins = dict.fromkeys(ROWS, "default")
    problems: list[UsageError] = []
    document, source = _read_file(paths.config_file, problems)
    for key, value in document.items():
        where = f"{paths.config_file}{_line_of(key, source)}"
        if key not in ROWS:
            problems.append(_unknown(f"{where}: there is no setting {key!r}", key, ROWS, "remove the line"))
        elif _take(key, value, False, where, problems, values):
            origins[key] = str(paths.config_file)
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES or name.startswith(FOREIGN_PREFIXES):
            continue
        key = name.removeprefix(PREFIX).lower()
        if key not in ROWS or name != variable(key):
            known = [*(variable(row) for row in ROWS), *OTHER_VARIABLES]
            problems.append(_unknown(f"There is no setting for the variable {name}", name, known, "unset it"))
        elif environ[name] and _take(key, environ[name], True, f"The variable {name}", problems, values):
            origins[key] = name
    if "timezone" not in values:
        values["timezone"] = machine_zone(environ)
    return Loaded(Settings(**cast(Any, values)), origins, tuple(problems))


def _take(
    key: str,
    value: object,
    from_text: bool,
    where: str,
    problems: list[UsageError],
    values: dict[str, object],
) -> bool:
    rule = rule_of(key)
    try:
        values[key] = rule.parse(value, from_text)
    except ValueError:
        found = "a value that is not shown here" if ROWS[key].metadata["masked"] else _quoted(value)
        subject = f"{where} is" if from_text else f"{where}: {key} is"
        problems.append(
            UsageError(
                f"{subject} {found}, allowed is {rule.allowed}",
                advice=f"Correct it, or take it out to use the default ({default_text(key)})",
                code="bad_setting",
            )
        )
        return False
    return True


def _quoted(value: object) -> str:
    if isinstance(value, str):
        short = value if len(value) <= 60 else value[:59] + "…"
        return f'"{clean_line(short)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    return str(value)


def _unknown(message: str, name: str, known: Iterable[str], otherwise: str) -> UsageError:
    from difflib import get_close_matches

    # The common prefix would make every variable look near.
    by_word = {candidate.removeprefix(PREFIX): candidate for candidate in known}
    words = get_close_matches(name.removeprefix(PREFIX), list(by_word), n=1, cutoff=0.6)
    near = [by_word[word] for word in words]
    advice = (
        f"Did you mean {near[0]}? Correct the name, or {otherwise}"
        if near
        else f"{otherwise[0].upper()}{otherwise[1:]}; `callboard config show` lists every setting"
    )
    return UsageError(message, advice=advice, code="unknown_setting")


def _read_file(file: Path, problems: list[UsageError]) -> tuple[dict[str, object], str]:
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        problems.append(
            UsageError(
                f"The settings file {file} cannot be read: {error.strerror or 'unknown reason'}",
                advice="Make it a file that you may read, or remove it",
                code="settings_unreadable",
            )
        )
        return {}, ""
    import tomllib

    source = ""
    try:
        source = raw.decode("utf-8-sig")
        return tomllib.loads(source), source
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reason = "the text is not UTF-8"
    except (ValueError, RecursionError) as error:
        place = re.search(r"\(at line (\d+)", str(error))
        line = int(place.group(1)) if place else source.count("\n", 0, len(source.rstrip())) + 1
        reason = re.sub(r"\s*\(at [^)]*\)$", "", str(error)).rstrip(".")
    problems.append(
        UsageError(
            f"The settings file is not valid TOML: {file}, line {line}: {reason}",
            advice="Correct that line, or move the file away to start with the defaults",
            code="settings_corrupt",
        )
    )
    return {}, ""


def _line_of(key: str, source: str) -> str:
    """`, line 3` where the key stands in the file, or nothing when it cannot be told."""
    found = re.search(rf"""(?m)^\s*\[?\s*["']?{re.escape(key)}["']?\s*[.=\]]""", source)
    return f", line {source.count(chr(10), 0, found.end()) + 1}" if found else ""


def secret_from(environ: Mapping[str, str], name: str) -> str | None:
    """A secret of the environment: the variable itself, else the file that `<name>_FILE` names.

    One line end at the file's end is not part of it. An empty variable counts as not set. Raises
    UsageError for a file that cannot be read or holds nothing.
    """
    if environ.get(name):
        return environ[name]
    file = environ.get(name + IN_FILE)
    if not file:
        return None
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(
            f"The file that {name + IN_FILE} names cannot be read: {reason}",
            advice=f"Correct the path, or unset {name + IN_FILE}",
            code="secret_unreadable",
        ) from None
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise UsageError(
            f"The file that {name + IN_FILE} names is empty",
            advice=f"Write the secret into it, or unset {name + IN_FILE}",
            code="secret_empty",
        )
    return secret


def machine_zone(environ: Mapping[str, str]) -> str:
    """The IANA name of this machine's time zone; UTC when it cannot be told."""
    asked = environ.get("TZ", "").removeprefix(":")
    if asked and not asked.startswith("/") and is_zone(asked):
        return asked
    if os.name == "nt":
        return _windows_zone()
    try:
        target = os.path.realpath("/etc/localtime")
        if "/zoneinfo/" in target:
            name = re.sub(r"^(posix|right)/", "", target.rpartition("/zoneinfo/")[2])
            if is_zone(name):
                return name
        name = Path("/etc/timezone").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return "UTC"
    return name if name and is_zone(name) else "UTC"


def _windows_zone() -> str:
    try:
        from tzlocal import get_localzone_name

        return str(get_localzone_name() or "UTC")
    except Exception:  # a machine with an odd registry must still start
        return "UTC"


# -- showing --------------------------------------------------------------------------------------


def default_text(name: str) -> str:
    """The default in words."""
    row = ROWS[name]
    return str(row.metadata["shown"]) or value_text(name, row.default)


def value_text(name: str, value: object) -> str:
    """A value as `config show` prints it: the password of a database URL is masked."""
    if value is None:
        return str(ROWS[name].metadata["shown"])
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return mask_url(str(value)) if ROWS[name].metadata["masked"] else str(value)


def mask_url(url: str) -> str:
    """The URL with the password, in its authority or as a parameter, replaced by asterisks."""
    url = re.sub(r"(?i)([?&][^=&]*pass[^=&]*=)[^&#]*", r"\1****", url)
    return re.sub(r"(://[^/?#:]*:).*(@)", r"\1****\2", url)


def database_url(settings: Settings, paths: Paths) -> str:
    """The URL of the database in force: the setting, or the SQLite file in the data directory."""
    return settings.database_url or f"sqlite:///{paths.database_file.as_posix()}"


def secret_service(settings: Settings, paths: Paths) -> str:
    """The name under which secrets are kept, so that two homes or two databases never mix their keys.

    `callboard` for the platform's directories and the default database; with a short suffix otherwise.
    A changed database password does not change it.
    """
    if paths.home is None and settings.database_url is None:
        return "callboard"
    from hashlib import sha256

    marks = [str(paths.home or ""), mask_url(settings.database_url or "")]
    return "callboard-" + sha256("\n".join(marks).encode()).hexdigest()[:10]
