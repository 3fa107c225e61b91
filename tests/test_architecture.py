"""Rules the whole tree keeps: layers, sizes, glyphs, schema, and nothing of the machine it was written on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from tests.support.sources import parsed

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "screens", "services")
MOST_LINES = 500
MOST_LINES_A_FUNCTION = 90
"""Migrations apart, which list what they make."""


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tracked() -> list[Path]:
    """Every file of the project: what git tracks, or what a source distribution unpacked."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0 and done.stdout:
        found = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    else:
        found = [
            *modules(*PACKAGES, "tests"),
            ROOT / "README.md",
            ROOT / "pyproject.toml",
            ROOT / "styles.tcss",
        ]
    return [path for path in found if path.is_file()]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_keep_the_contracts():
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_know_no_terminal():
    guilty = []
    for path in modules("services"):
        for node in ast.walk(parsed(path)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                guilty.append(f"{relative(path)}:{node.lineno} prints")
            guilty += [
                f"{relative(path)}:{node.lineno} imports {name}"
                for name in names
                if name.split(".")[0] in ("textual", "rich", "app", "screens")
            ]
    assert not guilty


def test_no_module_is_a_god():
    sizes = {
        relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(*PACKAGES)
    }
    assert not {name: lines for name, lines in sizes.items() if lines > MOST_LINES}


def test_no_function_is_one_either():
    long = []
    for path in modules(*PACKAGES):
        if path.parent.name == "versions":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_LINES_A_FUNCTION:
                    long.append(f"{relative(path)}:{node.lineno} {node.name}: {lines} lines")
    assert not long


def test_no_glyph_has_two_widths():
    """U+FE0F makes terminals and Rich disagree about a glyph's width."""
    selector = "\N{VARIATION SELECTOR-16}"
    assert not [
        relative(path)
        for path in tracked()
        if path.suffix in (".py", ".tcss", ".md") and selector in path.read_text(encoding="utf-8")
    ]


def test_one_stylesheet():
    """A sheet on a screen would leak into the whole app; ours is one file at the root."""
    guilty = []
    for path in modules("app", "screens"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    targets = item.targets if isinstance(item, ast.Assign) else []
                    guilty += [
                        f"{relative(path)}:{item.lineno}"
                        for target in targets
                        if isinstance(target, ast.Name) and target.id == "CSS"
                    ]
    assert not guilty
    assert [relative(path) for path in tracked() if path.suffix == ".tcss"] == ["styles.tcss"]


def test_stylesheet_parses():
    from textual.css.stylesheet import Stylesheet
    from textual.theme import BUILTIN_THEMES

    from screens.theme import FALLBACKS

    sheet = Stylesheet(variables=_variables(BUILTIN_THEMES["textual-dark"], FALLBACKS))
    sheet.read(ROOT / "styles.tcss")
    sheet.parse()
    assert sheet.rules


def _variables(theme, fallbacks) -> dict[str, str]:
    from textual.app import App

    known = {**App().get_theme_variable_defaults(), **theme.to_color_system().generate()}
    for ours, theirs in fallbacks.items():
        known.setdefault(ours, known.get(theirs, "red"))
    return known


def test_migrations_and_tables_are_equal(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlmodel import SQLModel

    import services.storage.tables.partial  # noqa: F401  # fills the metadata, with all tables
    from services.storage.database import make_engine, prepare_schema
    from services.storage.location import DatabaseLocation

    where = DatabaseLocation(path=tmp_path / "fresh.db")
    prepare_schema(where)
    engine = make_engine(where)
    try:
        with engine.connect() as connection:
            options = {"compare_type": True, "render_as_batch": True, "include_object": _is_ours}
            differences = compare_metadata(
                MigrationContext.configure(connection, opts=options), SQLModel.metadata
            )
    finally:
        engine.dispose()
    assert not differences


def _is_ours(thing, name, kind, reflected, other) -> bool:
    """Not the full-text index, which SQLite keeps in tables of its own."""
    return not (kind == "table" and (name or "").startswith("knowledge_fts"))


def test_known_schema_versions_are_the_migrations():
    from services.storage.reader import HEAD, KNOWN

    folder = resources.files("services.storage.migrations") / "versions"
    versions = sorted(
        entry.name.partition("_")[0] for entry in folder.iterdir() if re.match(r"\d{4}_.*\.py$", entry.name)
    )
    assert tuple(versions) == KNOWN
    assert KNOWN[-1] == HEAD


# Put together from parts, so that this file does not accuse itself.
_HOSTS = [re.escape(host) for host in ("pypi" + ".org", "npmjs" + ".org", "files.python" + "hosted.org")]
_PLACES = [rf"/{name}/" for name in ("work", "root", "farm")]
FOREIGN = re.compile("|".join([*_HOSTS, *(rf"(?<![\w.<:/-]){place}" for place in _PLACES)]))


@pytest.mark.parametrize(
    "suffixes", [(".py", ".tcss", ".mako"), (".md", ".toml", ".sh", "run", ".yml", ".cfg")]
)
def test_nothing_of_this_machine(suffixes):
    guilty = []
    for path in tracked():
        if path.name.endswith(suffixes):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if FOREIGN.search(line):
                    guilty.append(f"{relative(path)}:{number}: {line.strip()[:100]}")
    assert not guilty


def test_every_marker_names_the_product():
    for package in PACKAGES:
        tree = parsed(ROOT / package / "__init__.py")
        values = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(getattr(t, "id", "") == "__product__" for t in node.targets)
        ]
        assert values == ["callboard"], package
