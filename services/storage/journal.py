"""The audit log's one way in."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlmodel import Session

from services.storage.tables import Audit


def record(
    session: Session,
    *,
    at: int,
    actor: str,
    action: str,
    subject: str,
    cause: str = "",
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> None:
    """Write one audit row in the caller's transaction, so that it exists exactly if the change does.

    `action` is a dotted word (`connection.add`), `subject` names the thing for people. `before` and
    `after` hold only the fields that changed, and never a secret.
    """
    session.add(
        Audit(
            at=at,
            actor=actor,
            action=action,
            subject=subject,
            cause=cause,
            before=json.dumps(before, ensure_ascii=False) if before else "",
            after=json.dumps(after, ensure_ascii=False) if after else "",
        )
    )
