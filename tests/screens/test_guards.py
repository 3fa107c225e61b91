"""Rules that hold for the sources of the screens and for every screen."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from screens.theme import THEMES
from tests.support.console import opened, settled
from tests.support.fake_services import FakeServices, seeded_cards
from tests.support.sources import parsed

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    *(ROOT / "screens").rglob("*.py"),
    ROOT / "app" / "console.py",
    ROOT / "app" / "pulse.py",
    ROOT / "app" / "terminal.py",
]
STYLES = (ROOT / "styles.tcss").read_text(encoding="utf-8")
TEXTUALS_OWN = {
    "Screen",
    "Toast",
    "ToastRack",
    "Tooltip",
    "VerticalScroll",
    "Input",
    "CommandPalette",
    "SearchIcon",
}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def test_no_variation_selector_in_the_sources() -> None:
    for file in [*SOURCES, ROOT / "styles.tcss"]:
        assert "\ufe0f" not in file.read_text(encoding="utf-8"), file


def test_every_selector_is_used() -> None:
    classes = {
        node.name for file in SOURCES for node in ast.walk(parsed(file)) if isinstance(node, ast.ClassDef)
    }
    text = "\n".join(file.read_text("utf-8") for file in SOURCES)
    selectors = re.sub(r"\{.*?\}", ",", without_comments(STYLES), flags=re.DOTALL)
    for name in set(re.findall(r"(?<![\w.#$-])([A-Z]\w+)", selectors)):
        assert name in classes | TEXTUALS_OWN, name
    for ident in set(re.findall(r"#([a-z][\w-]*)", selectors)):
        assert f'"{ident}"' in text, ident
    for name in set(re.findall(r"\.([a-z][\w-]*)", selectors)):
        prefix = name.split("--")[0]
        assert (
            f'"{name}"' in text or f"{prefix}--{{" in text or re.search(rf'classes="[^"]*\b{name}\b', text)
        ), name


def test_every_component_class_is_styled() -> None:
    for widget, classes in re.findall(
        r"class (\w+)\(.*?COMPONENT_CLASSES[^=]*= \{(.*?)\n    \}",
        "\n".join(file.read_text("utf-8") for file in SOURCES),
        flags=re.DOTALL,
    ):
        for name in re.findall(r'"([a-z]+--[a-z]+)"', classes):
            assert f".{name} " in STYLES, (widget, name)


def test_colours_come_from_the_theme() -> None:
    assert not re.search(r"#[0-9a-fA-F]{6}\b", STYLES)
    names = [
        set(theme.variables) & {key for key in theme.variables if key.startswith("tone-")} for theme in THEMES
    ]
    assert names[0] == names[1] == names[2]
    for used in set(re.findall(r"\$(tone-[\w-]+)", STYLES)):
        assert used in names[0]


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    "theme", [theme for theme in THEMES if not theme.ansi], ids=lambda theme: str(theme.name)
)
def test_every_text_colour_is_readable(theme: object) -> None:
    from textual.theme import Theme

    assert isinstance(theme, Theme)
    assert theme.background is not None
    assert theme.foreground is not None
    for name in ("ok", "look", "act", "moving", "muted"):
        assert contrast(theme.variables[f"tone-{name}"], theme.background) >= 4.5, name
    assert contrast(theme.foreground, theme.background) >= 10


@pytest.mark.parametrize(
    "keys", [[], ["enter"], ["2"], ["3"], ["4"], ["5"], ["c"], ["question_mark"], ["colon"], ["3", "c"]]
)
async def test_few_widgets_on_every_screen(keys: list[str]) -> None:
    async with opened(FakeServices(cards=seeded_cards(1_000)), (140, 40)) as pilot:
        await pilot.press(*keys)
        await settled(pilot)
        assert len(list(pilot.app.screen.walk_children())) <= 300


def test_no_screen_talks_to_a_vendor_a_socket_or_sql() -> None:
    for file in (ROOT / "screens").rglob("*.py"):
        text = file.read_text("utf-8")
        assert not re.search(
            r"^\s*(import|from) (httpx|sqlite3|sqlmodel|sqlalchemy|socket|app)\b", text, re.MULTILINE
        ), file


def test_calls_are_loaded_when_they_are_opened() -> None:
    calls = "[name for name in sys.modules if name.startswith(('screens.call', 'services.calls'))]"
    code = f"import sys, app.console; print({calls})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['screens.call_actions']"


def test_health_is_loaded_when_it_is_opened() -> None:
    health = "[name for name in sys.modules if name.startswith(('screens.health', 'services.health'))]"
    code = f"import sys, app.console; print({health})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "['screens.health_actions']"


def test_files_stay_small() -> None:
    for file in SOURCES:
        assert len(file.read_text("utf-8").splitlines()) <= 400, file
