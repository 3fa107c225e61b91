"""Where the program keeps its files: the platform's directories, or all of them below `CALLBOARD_HOME`.

Nothing here touches the disk except `ensure` and `stylesheet`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

APP_NAME = "callboard"
HOME_VARIABLE = "CALLBOARD_HOME"
STYLESHEET = "styles.tcss"


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories and files of one installation; `home` replaces the platform's directories."""

    home: Path | None = None

    @property
    def config_dir(self) -> Path:
        return self._below("config")

    @property
    def data_dir(self) -> Path:
        return self._below("data")

    @property
    def log_dir(self) -> Path:
        return self._below("logs")

    @property
    def cache_dir(self) -> Path:
        return self._below("cache")

    @property
    def config_file(self) -> Path:
        return self.config_dir / "config.toml"

    @property
    def database_file(self) -> Path:
        return self.data_dir / "callboard.db"

    @property
    def secrets_file(self) -> Path:
        return self.data_dir / "secrets.json"

    @property
    def calls_dir(self) -> Path:
        """The recordings of calls, a folder each."""
        return self.data_dir / "calls"

    @property
    def demo_dir(self) -> Path:
        """The demo company's own database lives here, apart from real data."""
        return self.data_dir / "demo"

    def _below(self, kind: str) -> Path:
        if self.home is not None:
            return self.home / kind
        from platformdirs import PlatformDirs

        directories = PlatformDirs(APP_NAME, appauthor=False)
        return {
            "config": directories.user_config_path,
            "data": directories.user_data_path,
            "logs": directories.user_log_path,
            "cache": directories.user_cache_path,
        }[kind]


def paths_from(environ: Mapping[str, str]) -> Paths:
    """The paths this environment asks for. A relative `CALLBOARD_HOME` counts from the working directory."""
    home = environ.get(HOME_VARIABLE, "")
    return Paths(Path(os.path.abspath(Path(home).expanduser())) if home else None)


def ensure(directory: Path) -> Path:
    """Create the directory, readable by its owner alone, unless it is there. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def stylesheet() -> Path:
    """The absolute path of styles.tcss: beside this package in a wheel, one level up in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / STYLESHEET
    return installed if installed.is_file() else package.parent / STYLESHEET
