from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app import paths as module
from app.paths import Paths, ensure, paths_from, stylesheet


def test_home_replaces_every_directory(tmp_path: Path) -> None:
    paths = paths_from({"CALLBOARD_HOME": str(tmp_path)})
    assert paths.config_file == tmp_path / "config" / "config.toml"
    for place in (paths.database_file, paths.secrets_file, paths.demo_dir):
        assert place.is_relative_to(tmp_path / "data")
    assert paths.log_dir == tmp_path / "logs"
    assert paths.cache_dir == tmp_path / "cache"
    assert list(tmp_path.iterdir()) == [], "asking for a path creates nothing"


def test_a_relative_home_becomes_absolute_and_a_tilde_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths_from({"CALLBOARD_HOME": "here"}).home == tmp_path / "here"
    assert paths_from({"CALLBOARD_HOME": "~/there"}).home == tmp_path / "there"
    assert paths_from({"CALLBOARD_HOME": ""}).home is None


def test_without_home_the_platform_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "d"))
    paths = Paths()
    assert paths.config_dir.name == "callboard"
    assert paths.data_dir.name in {"callboard", "Callboard"}
    assert len({paths.data_dir, paths.log_dir, paths.cache_dir}) == 3


def test_created_directories_are_private(tmp_path: Path) -> None:
    made = ensure(tmp_path / "data")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert ensure(made) == made


def test_the_stylesheet_is_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stylesheet().is_absolute()
    assert stylesheet().is_file()
    package = tmp_path / "app"
    package.mkdir()
    monkeypatch.setattr(module, "__file__", str(package / "paths.py"))
    assert stylesheet() == tmp_path / "styles.tcss"
    (package / "styles.tcss").touch()
    assert stylesheet() == package / "styles.tcss"
