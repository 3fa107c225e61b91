"""What an operator can do in a call, in the list of calls and in a replay; part of `screens.actions`."""

from __future__ import annotations

from screens.action import Action

CALL, CALLS, REPLAY = "call", "calls", "replay"
TALK, CALL_GROUP, FIND, MOVE, PLAY, LIST = "Talk", "Call", "Find", "Move", "Play", "Calls"


def _reading(place: str) -> tuple[Action, ...]:
    """The keys of a transcript, the same in a call and in a replay."""
    return (
        Action("search", ("slash",), "search", "Search the transcript.", FIND, place, 40),
        Action("next_match", ("n",), "next", "The next place found.", FIND, place, 14),
        Action("previous_match", ("N",), "before", "The place found before.", FIND, place, 15),
        Action("follow", ("f",), "follow", "Go to the end and stay there.", FIND, place, 13),
        Action("copy_line", ("y",), "copy", "Copy this line, or the newest.", FIND, place, 45),
        Action("copy_all", ("Y",), "copy all", "Copy the whole transcript.", FIND, place, 55),
        Action("line_up", ("up", "k"), "up", "One line up; leaves the end.", MOVE, place, 0, False),
        Action("line_down", ("down", "j"), "down", "One line down.", MOVE, place, 0, False),
        Action("page_up", ("pageup",), "page up", "One screen up.", MOVE, place, 0, False),
        Action("page_down", ("pagedown",), "page down", "One screen down.", MOVE, place, 0, False),
        Action("first", ("home", "g"), "first", "To the first line.", MOVE, place, 0, False),
        Action("last", ("end", "G"), "last", "To the last line, and follow.", MOVE, place, 0, False),
    )


CALL_ACTIONS: tuple[Action, ...] = (
    # -- a live call ------------------------------------------------------------------------------
    Action("approve", ("a",), "allow", "Let the waiting tool run.", TALK, CALL, 5),
    Action("deny", ("d",), "deny", "Refuse the waiting tool.", TALK, CALL, 6),
    Action("talk", ("space",), "talk", "Open or close the microphone; press again.", TALK, CALL, 10),
    Action("mute", ("m",), "mute", "Send silence instead of your voice, or not.", TALK, CALL, 11),
    Action(
        "push_to_talk", ("p",), "push to talk", "Only space opens the microphone, or not.", TALK, CALL, 38
    ),
    Action("say", ("t", "enter"), "type", "Type what you say; esc leaves the line.", TALK, CALL, 12),
    Action("inform", ("i",), "inform", "Tell the agent what you did not say.", TALK, CALL, 20),
    Action("mark_now", ("x",), "mark", "Mark this moment.", CALL_GROUP, CALL, 18),
    Action("mark_note", ("X",), "mark + note", "Mark this moment with a note.", CALL_GROUP, CALL, 60),
    Action("devices", ("v",), "devices", "Other microphone or speaker, in the call.", CALL_GROUP, CALL, 30),
    Action("panel", ("tab",), "line", "Show or hide meters, latency and devices.", CALL_GROUP, CALL, 42),
    Action("end_call", ("e", "E"), "end", "End the call at once.", CALL_GROUP, CALL, 16),
    Action("again", ("r",), "call again", "Call the same agent again.", CALL_GROUP, CALL, 8),
    Action("replay", ("o",), "replay", "Play this call again.", CALL_GROUP, CALL, 9),
    Action("leave", ("escape", "q"), "back", "Back; the call goes on.", CALL_GROUP, CALL, 35),
    *_reading(CALL),
    # -- the calls --------------------------------------------------------------------------------
    Action("open_call", ("enter",), "open", "Go to the live call, or replay a past one.", LIST, CALLS, 10),
    Action("filter", ("slash",), "filter", "Text, transport: end: agent: company:.", LIST, CALLS, 12),
    Action("export", ("w",), "export", "Write the recording into a folder.", LIST, CALLS, 20),
    Action("delete", ("d",), "delete", "Delete the recording; asks first.", LIST, CALLS, 22),
    Action("copy_id", ("y",), "copy", "Copy the id of the call.", LIST, CALLS, 40),
    Action("row_up", ("up", "k"), "up", "One line up.", MOVE, CALLS, 0, False),
    Action("row_down", ("down", "j"), "down", "One line down.", MOVE, CALLS, 0, False),
    Action("rows_up", ("pageup",), "page up", "One screen up.", MOVE, CALLS, 0, False),
    Action("rows_down", ("pagedown",), "page down", "One screen down.", MOVE, CALLS, 0, False),
    Action("first_row", ("home", "g"), "first", "To the first line.", MOVE, CALLS, 0, False),
    Action("last_row", ("end", "G"), "last", "To the last line.", MOVE, CALLS, 0, False),
    Action("leave", ("escape", "q"), "back", "Drop the filter, or back to the agents.", LIST, CALLS, 30),
    # -- replay -----------------------------------------------------------------------------------
    Action("play", ("space",), "play/pause", "Play, or pause.", PLAY, REPLAY, 10),
    Action("back_5", ("left", "h"), "5 s back", "Five seconds back.", PLAY, REPLAY, 16),
    Action("ahead_5", ("right", "l"), "5 s on", "Five seconds on.", PLAY, REPLAY, 17),
    Action("turn_before", ("comma",), "turn before", "To the turn before.", PLAY, REPLAY, 18),
    Action("turn_next", ("full_stop",), "next turn", "To the next turn.", PLAY, REPLAY, 19),
    Action("mark_next", ("x",), "next mark", "To the next mark, cut or error.", PLAY, REPLAY, 30),
    Action("faster", ("plus", "equals_sign"), "faster", "Play faster, up to 4 times.", PLAY, REPLAY, 32),
    Action("slower", ("minus",), "slower", "Play slower, down to half.", PLAY, REPLAY, 33),
    Action("jump_here", ("enter",), "play here", "Go to the moment of this line.", PLAY, REPLAY, 12),
    Action("export", ("w",), "export", "Write the recording into a folder.", PLAY, REPLAY, 58),
    Action("leave", ("escape", "q"), "back", "Back to the calls.", PLAY, REPLAY, 35),
    *_reading(REPLAY),
)
