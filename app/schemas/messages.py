"""The contracts of messages."""

from __future__ import annotations

from app.schemas.shapes import ERROR, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
from services.integrations.messages.model import Channel, MessageState

MESSAGE = object_of(
    {
        "id": TEXT,
        "company": TEXT,
        "channel": one_of(Channel),
        "adapter": TEXT,
        "integration": TEXT,
        "agent": or_null({"type": "integer", "description": "the mirror's own id of the agent"}),
        "to": TEXT,
        "sender": TEXT,
        "subject": TEXT,
        "body": TEXT,
        "template": or_null(object_of({"name": TEXT, "language": TEXT, "parameters": {"type": "object"}})),
        "state": one_of(MessageState),
        "followed": {**FLAG, "description": "its provider is asked again"},
        "simulated": {**FLAG, "description": "nothing was sent"},
        "remark": TEXT,
        "provider_id": TEXT,
        "resend_of": or_null({**TEXT, "description": "the message that was ordered again with this one"}),
        "error": or_null(ERROR),
        "created_at": TIME,
        "updated_at": TIME,
    }
)
STEP = object_of({"at": TIME, "state": one_of(MessageState), "source": TEXT, "detail": TEXT})

SUMMARIES: dict[str, str] = {
    "messages": "callboard message list",
    "message": "callboard message send, show, resend, follow",
}
SCHEMAS: dict[str, Schema] = {
    "messages": object_of({"messages": list_of(MESSAGE)}),
    "message": object_of({"message": MESSAGE, "events": list_of(STEP)}),
}
