"""Drift is an algebra over three digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agents.drift import classify
from services.model import Drift

digests = st.none() | st.sampled_from(["x", "y", "z"])
MIRROR_IMAGE = {Drift.LOCAL_AHEAD: Drift.REMOTE_AHEAD, Drift.REMOTE_AHEAD: Drift.LOCAL_AHEAD}


@pytest.mark.parametrize(
    ("base", "local", "remote", "drift"),
    [
        ("x", "x", "x", Drift.IN_SYNC),
        ("x", "y", "x", Drift.LOCAL_AHEAD),
        ("x", "x", "y", Drift.REMOTE_AHEAD),
        ("x", "y", "z", Drift.CONFLICT),
        ("x", "y", "y", Drift.IN_SYNC),
        (None, "x", "y", Drift.CONFLICT),
        (None, None, None, Drift.UNKNOWN),
    ],
)
def test_the_table(base: str | None, local: str | None, remote: str | None, drift: Drift) -> None:
    assert classify(base, local, remote) is drift


@given(digests, digests, digests)
def test_swapping_the_sides_swaps_the_answer(base: str | None, local: str | None, remote: str | None) -> None:
    answer = classify(base, local, remote)
    assert classify(base, remote, local) is MIRROR_IMAGE.get(answer, answer)


@given(digests, digests, digests)
def test_in_sync_means_equal(base: str | None, local: str | None, remote: str | None) -> None:
    assert (classify(base, local, remote) is Drift.IN_SYNC) == (local is not None and local == remote)
