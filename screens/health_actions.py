"""What an operator can do on the health screen and in the detail of one check; part of `screens.actions`."""

from __future__ import annotations

from screens.action import Action

HEALTH, CHECK = "health", "check"
_WATCH, _FIND, _MOVE = "Health", "Find", "Move"

HEALTH_ACTIONS: tuple[Action, ...] = (
    Action("open", ("enter",), "detail", "Everything about this line, or unfold it.", _WATCH, HEALTH, 10),
    Action("check", ("r",), "check now", "Check this line now; esc stops waiting.", _WATCH, HEALTH, 12),
    Action("check_all", ("R",), "check all", "Check everything now.", _WATCH, HEALTH, 40),
    Action("breaker", ("b",), "breaker", "Close the breaker, or open it; asks.", _WATCH, HEALTH, 14),
    Action(
        "maintain", ("w",), "maintenance", "Begin or end maintenance; no alerts in it.", _WATCH, HEALTH, 16
    ),
    Action(
        "break_vendor",
        ("B",),
        "break/mend",
        "Let this vendor or partner fail, or mend it.",
        "Demo",
        HEALTH,
        13,
    ),
    Action("fold", ("space",), "unfold", "Unfold or fold these lines.", _WATCH, HEALTH, 18),
    Action("copy", ("y",), "copy", "Copy this line with its error and advice.", _WATCH, HEALTH, 45),
    Action(
        "filter", ("slash",), "filter", "Text, state: kind: company: vendor:, ! inverts.", _FIND, HEALTH, 20
    ),
    Action(
        "leave", ("escape", "q"), "back", "Stop waiting, drop the filter, or go back.", _WATCH, HEALTH, 30
    ),
    Action("left", ("left", "h"), "left", "To the panel at the left.", _MOVE, HEALTH, 0, False),
    Action("right", ("right", "l"), "right", "To the panel at the right.", _MOVE, HEALTH, 0, False),
    Action("up", ("up", "k"), "up", "One line up.", _MOVE, HEALTH, 0, False),
    Action("down", ("down", "j"), "down", "One line down.", _MOVE, HEALTH, 0, False),
    Action("page_up", ("pageup",), "page up", "One screen up.", _MOVE, HEALTH, 0, False),
    Action("page_down", ("pagedown",), "page down", "One screen down.", _MOVE, HEALTH, 0, False),
    Action("first", ("home", "g"), "first", "To the first line.", _MOVE, HEALTH, 0, False),
    Action("last", ("end", "G"), "last", "To the last line.", _MOVE, HEALTH, 0, False),
    # -- the detail of one check ------------------------------------------------------------------
    Action("close", ("escape", "q", "enter"), "back", "Leave the detail.", _WATCH, CHECK, 9),
    Action(
        "next_tab", ("tab", "right_square_bracket"), "history", "Now, 24 h, 7 d, 30 d.", _WATCH, CHECK, 11
    ),
    Action(
        "previous_tab", ("shift+tab", "left_square_bracket"), "tab before", "The tab before.", _WATCH, CHECK
    ),
    Action("next_check", ("n",), "next", "The next line of the list.", _WATCH, CHECK, 13),
    Action("previous_check", ("p",), "previous", "The line before.", _WATCH, CHECK, 35),
    Action("scroll_up", ("up", "k"), "up", "One line up.", _MOVE, CHECK, 0, False),
    Action("scroll_down", ("down", "j"), "down", "One line down.", _MOVE, CHECK, 0, False),
    Action("scroll_page_up", ("pageup",), "page up", "One screen up.", _MOVE, CHECK, 0, False),
    Action(
        "scroll_page_down", ("pagedown", "space"), "page down", "One screen down.", _MOVE, CHECK, 0, False
    ),
    Action("scroll_first", ("home", "g"), "top", "To the top.", _MOVE, CHECK, 0, False),
    Action("scroll_last", ("end", "G"), "bottom", "To the bottom.", _MOVE, CHECK, 0, False),
)
