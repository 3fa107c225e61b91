"""One thing an operator can do, as a row of the table in `screens.actions`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do. `keys` are Textual's names; `label` is the word in the key line, `help` one sentence.

    `weight` decides what stays when the key line is too narrow: the smaller, the longer it stays.
    0 keeps it out of the key line altogether.
    """

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: str
    place: str
    weight: int = 0
    palette: bool = True

    @property
    def binding_id(self) -> str:
        return f"{self.place}.{self.id}"

    @property
    def shown_keys(self) -> tuple[str, ...]:
        """The keys as a person reads them."""
        return tuple(_KEY_WORDS.get(key, key) for key in self.keys)


_KEY_WORDS = {
    "question_mark": "?",
    "slash": "/",
    "colon": ":",
    "escape": "esc",
    "pageup": "page up",
    "pagedown": "page down",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "ctrl+q": "ctrl+q",
    "shift+tab": "shift+tab",
    "comma": ",",
    "full_stop": ".",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
}
