"""The queue of what is played: order, waits, gaps, and what an interruption takes out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.calls.audio.playout import HOLD_MS, HOLD_STEP_MS, MOST_HOLD_MS, Playout

RATE = 16_000
FRAME = 320


def sound(ms: int, value: int = 1) -> bytes:
    return value.to_bytes(2, "little") * (RATE * ms // 1000)


def test_a_long_piece_starts_with_the_next_block():
    playout = Playout(RATE)
    playout.add(sound(100), 1, 0.0)
    block = playout.take(FRAME, 0.001)
    assert block.length == len(block.pcm) == FRAME * 2
    assert block.events == ((1, FRAME * 2),)
    assert block.waited == (0.001,)
    assert playout.queued_ms == 80


def test_a_short_piece_waits_for_the_next_one_but_not_for_ever():
    playout = Playout(RATE)
    playout.add(sound(20), 1, 0.0)
    assert playout.take(FRAME, 0.005).length == 0
    playout.add(sound(20), 1, 0.008)
    assert playout.take(FRAME, 0.009).length > 0
    lonely = Playout(RATE)
    lonely.add(sound(5), 1, 0.0)
    assert lonely.take(FRAME, HOLD_MS / 1000).length == RATE * 5 // 1000 * 2


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 5)), max_size=12), st.integers(1, 700))
def test_everything_comes_out_in_order_and_is_counted(pieces, block):
    playout = Playout(RATE)
    wanted = b""
    for length, event in sorted(pieces, key=lambda piece: piece[1]):
        pcm = bytes(number % 251 + 1 for number in range(length * 2))
        playout.add(pcm, event, 0.0)
        wanted += pcm
    out, events = b"", {}
    for step in range(len(wanted) // (block * 2) + 2):
        taken = playout.take(block, 1.0 + step)
        assert len(taken.pcm) == block * 2
        assert not any(taken.pcm[taken.length :])
        out += taken.pcm[: taken.length]
        for event, size in taken.events:
            events[event] = events.get(event, 0) + size
    assert out == wanted
    assert sum(events.values()) == len(wanted)
    assert playout.queued_ms == 0


def test_an_interruption_takes_out_what_it_names_and_keeps_it_out():
    playout = Playout(RATE)
    for event in (1, 2, 3):
        playout.add(sound(40, event), event, 0.0)
    playout.take(FRAME, 0.001)
    playout.drop(2)
    assert playout.queued_ms == 40
    assert not playout.add(sound(40, 2), 2, 0.1), "later audio of a dropped event"
    assert playout.add(sound(40, 4), 4, 0.1)
    assert playout.take(FRAME, 0.2).events == ((3, FRAME * 2),)


def test_an_older_interruption_does_not_bring_dropped_events_back():
    playout = Playout(RATE)
    playout.drop(5)
    playout.drop(2)
    assert not playout.add(sound(20), 4, 0.0)


def test_dropping_everything_forbids_nothing():
    playout = Playout(RATE)
    playout.add(sound(100), 0, 0.0)
    playout.drop(None)
    assert playout.queued_ms == 0
    assert playout.take(FRAME, 0.1).length == 0
    assert playout.add(sound(100), 0, 0.2)
    assert playout.take(FRAME, 0.2).length > 0


def test_audio_that_comes_late_is_a_gap_and_makes_the_wait_longer():
    playout = Playout(RATE)
    playout.add(sound(30), 1, 0.0)
    playout.take(FRAME, 0.0)
    playout.take(FRAME, 0.02)
    playout.add(sound(30), 1, 0.1)
    assert playout.gaps == 1
    assert playout.hold_ms == HOLD_MS + HOLD_STEP_MS
    for late in range(20):
        at = 1.0 + late
        playout.add(sound(30), 1, at)
        playout.take(FRAME, at + 0.2)
        playout.take(FRAME, at + 0.22)
        playout.add(sound(30), 1, at + 0.3)
        playout.take(FRAME, at + 0.5)
        playout.take(FRAME, at + 0.52)
    assert playout.hold_ms == MOST_HOLD_MS


def test_the_wait_becomes_shorter_again():
    playout = Playout(RATE)
    playout.hold_ms = HOLD_MS + 4 * HOLD_STEP_MS
    for utterance in range(6):
        at = 20.0 * utterance
        playout.add(sound(30), utterance, at)
        playout.take(FRAME, at + 0.2)
        playout.take(FRAME, at + 0.22)
    assert playout.hold_ms == HOLD_MS
    assert playout.gaps == 0


def test_a_new_utterance_soon_after_the_last_is_no_gap():
    playout = Playout(RATE)
    playout.add(sound(30), 1, 0.0)
    playout.take(FRAME, 0.0)
    playout.take(FRAME, 0.02)
    playout.add(sound(30), 2, 0.1)
    assert playout.gaps == 0


def test_what_waits_behind_much_else_is_no_delay_of_ours():
    playout = Playout(RATE)
    playout.add(sound(200), 1, 0.0)
    playout.add(sound(20), 1, 0.0)
    waited = [each for step in range(12) for each in playout.take(FRAME, step * 0.02).waited]
    assert waited == [0.0]
