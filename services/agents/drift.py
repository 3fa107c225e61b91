"""Drift: how local and remote stand to their common base, by digest alone."""

from __future__ import annotations

from services.model import Drift


def classify(base: str | None, local: str | None, remote: str | None) -> Drift:
    """Compare three digests; None stands for "never read".

    Local and remote that are equal are in sync whatever the base says: both sides made the same
    change, and the base only has to follow.
    """
    if remote is None or local is None:
        return Drift.UNKNOWN
    if local == remote:
        return Drift.IN_SYNC
    if base is None:
        return Drift.CONFLICT
    if local == base:
        return Drift.REMOTE_AHEAD
    if remote == base:
        return Drift.LOCAL_AHEAD
    return Drift.CONFLICT
