"""What is shipped: the wheel's contents, and the program run from an environment with the wheel alone."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.environment import child_environment
from tests.support.servers import unavailable
from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what belongs to the project."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("app", "screens", "services"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "styles.tcss"):
        shutil.copy(ROOT / name, source / name)
    build = (
        "import os, sys; from hatchling.build import build_wheel;"
        "os.chdir(sys.argv[1]); os.makedirs(sys.argv[2], exist_ok=True); build_wheel(sys.argv[2])"
    )
    command = [sys.executable, "-c", build, str(source), str(folder / "dist")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def _pip() -> list[str]:
    """A pip: of this environment, or of the Python it was made from."""
    for python in (sys.executable, getattr(sys, "_base_executable", ""), shutil.which("python3") or ""):
        if (
            python
            and not subprocess.run(
                [python, "-m", "pip", "--version"], capture_output=True, check=False
            ).returncode
        ):
            return [python, "-m", "pip", "--disable-pip-version-check"]
    return unavailable("pip is not installed")


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `callboard` command of an environment with the wheel in it; only its dependencies are borrowed."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    place = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    pip = _pip()
    done = subprocess.run(
        [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    borrowed = [path for path in site.getsitepackages() if Path(path).is_dir()]
    (place / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return folder / "bin" / "callboard"


def run(command: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(command), *words],
        env=child_environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"app", "screens", "services"}
    assert "app/styles.tcss" in names
    migrations = "services/storage/migrations"
    assert {
        f"{migrations}/script.py.mako",
        f"{migrations}/env.py",
        f"{migrations}/versions/0001_first.py",
    } <= set(names)
    assert not [name for name in names if "tests/" in name or name.endswith(".pyc")]
    sources = {
        str(path.relative_to(ROOT))
        for package in ("app", "screens", "services")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= set(names)


def test_metadata_names_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert "callboard = app.cli:main" in archive.read(entry).decode()


def test_answers(installed, tmp_path):
    version = run(installed, tmp_path, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("callboard ")
    usage = run(installed, tmp_path, "--help")
    assert usage.returncode == 0
    assert "usage: callboard" in usage.stdout


def test_runs_outside_the_checkout(installed, tmp_path):
    """What runs is the wheel's code, not the checkout's, in a folder with a `services` of its own."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    python = installed.parent / "python"
    where = subprocess.run(
        [python, "-P", "-c", "import app, services; print(app.__file__, services.__file__)"],
        env=child_environment(tmp_path), cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(Path(path).is_relative_to(installed.parent.parent) for path in where.split())
    assert run(installed, tmp_path, "--version").returncode == 0


def test_syncs_the_demo(installed, tmp_path):
    done = run(installed, tmp_path, "--demo", "sync", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    import json

    report = json.loads(done.stdout)
    assert report["counts"]["created"] == len(report["agents"]) > 0


def test_opens_the_console(installed, tmp_path):
    with Terminal([str(installed)], child_environment(tmp_path), folder=tmp_path) as terminal:
        terminal.wait_for("DEMO")
        terminal.send("q")
        assert terminal.wait_exit() == 0
    assert not os.path.exists(tmp_path / "styles.tcss")
