"""The colours: a dark, a light and a 16-colour theme. One accent; the rest of the colours have meanings."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import App
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.theme import Theme

DARK, LIGHT, PLAIN = "callboard-dark", "callboard-light", "callboard-16"


def _variables(**tones: str) -> dict[str, str]:
    return {f"tone-{name.replace('_', '-')}": colour for name, colour in tones.items()}


THEMES: tuple[Theme, ...] = (
    Theme(
        name=DARK,
        primary="#b79cf5",
        secondary="#b79cf5",
        accent="#b79cf5",
        success="#7fc98f",
        warning="#e3b45c",
        error="#f07178",
        foreground="#d5d8df",
        background="#12141a",
        surface="#181b22",
        panel="#20242d",
        dark=True,
        variables=_variables(
            ok="#7fc98f", look="#e3b45c", act="#f07178", moving="#6fb3f2", muted="#8b92a0", line="#3a404d"
        ),
    ),
    Theme(
        name=LIGHT,
        primary="#6f42c1",
        secondary="#6f42c1",
        accent="#6f42c1",
        success="#1a7f37",
        warning="#8a5a00",
        error="#c4212d",
        foreground="#1f2328",
        background="#fbfbfa",
        surface="#f3f3f1",
        panel="#e9e9e6",
        dark=False,
        variables=_variables(
            ok="#1a7f37", look="#8a5a00", act="#c4212d", moving="#0b63c5", muted="#656d76", line="#c3c8ce"
        ),
    ),
    Theme(
        name=PLAIN,
        ansi=True,
        primary="ansi_magenta",
        secondary="ansi_magenta",
        accent="ansi_magenta",
        success="ansi_green",
        warning="ansi_yellow",
        error="ansi_red",
        foreground="ansi_default",
        background="ansi_default",
        surface="ansi_default",
        panel="ansi_default",
        boost="ansi_default",
        dark=True,
        variables={
            **_variables(
                ok="ansi_green",
                look="ansi_yellow",
                act="ansi_red",
                moving="ansi_bright_blue",
                muted="ansi_default",
                line="ansi_default",
            ),
            "ansi-background": "ansi_default",
            "ansi-foreground": "ansi_default",
            "block-cursor-foreground": "ansi_default",
            "block-cursor-background": "ansi_default",
            "input-cursor-background": "ansi_default",
            "input-cursor-foreground": "ansi_default",
            "border": "ansi_magenta",
            "border-blurred": "ansi_default",
        },
    ),
)

FALLBACKS = {
    "tone-ok": "success",
    "tone-look": "warning",
    "tone-act": "error",
    "tone-moving": "primary",
    "tone-muted": "text-muted",
    "tone-line": "panel-lighten-2",
}
"""For themes that are not ours: our variables by the names of Textual's."""

_NAMES = {"": DARK, "auto": DARK, "dark": DARK, "light": LIGHT, "plain": PLAIN}
_NAMES |= {"textual-dark": DARK, "textual-light": LIGHT, "ansi": PLAIN}


def theme_name(wish: str, colours: str | None, no_color: bool) -> str:
    """The theme for a setting. Few colours or none get the one that uses only the terminal's own."""
    if no_color or colours in (None, "standard", "windows"):
        return PLAIN
    return _NAMES.get(wish, wish)


class BlankBars(ScrollBarRender):
    """Scroll bars of blanks in reverse: no block characters."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * 8
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * 8


def draw_plainly(app: App[Any], plainly: bool) -> None:
    """Frames and scroll bars of ASCII alone, as the glyphs are then, or the usual ones."""
    app.set_class(plainly, "-ascii")
    ScrollBar.renderer = BlankBars if plainly else ScrollBarRender
