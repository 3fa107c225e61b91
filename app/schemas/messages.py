"""The contracts of messages."""

from __future__ import annotations

from app.schemas.shapes import COUNT, ERROR, FLAG, TEXT, TIME, Schema, list_of, object_of, one_of, or_null
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
        "text_removed_at": or_null({**TIME, "description": "when its texts were deleted for their age"}),
    }
)
INBOUND = object_of(
    {
        "id": TEXT,
        "company": or_null({**TEXT, "description": "null where an integration serves all companies"}),
        "channel": one_of(Channel),
        "integration": TEXT,
        "from": {**TEXT, "description": "a number, or the user's id where there is none"},
        "user": or_null({**TEXT, "description": "the user's id towards the business"}),
        "name": {**TEXT, "description": "as the sender calls itself"},
        "to": TEXT,
        "kind": {**TEXT, "description": "text, or what the vendor calls it: image, audio, button, …"},
        "body": TEXT,
        "reply_to": or_null({**TEXT, "description": "the vendor's id of the message that it answers"}),
        "provider_id": TEXT,
        "sent_at": TIME,
        "received_at": TIME,
        "text_removed_at": or_null({**TIME, "description": "when the text was deleted for its age"}),
    }
)
RETENTION = object_of(
    {
        "company": TEXT,
        "days": or_null({**COUNT, "description": "null for ever"}),
        "own": {**FLAG, "description": "false where the setting messages_keep_days decides"},
    }
)
STEP = object_of({"at": TIME, "state": one_of(MessageState), "source": TEXT, "detail": TEXT})

SUMMARIES: dict[str, str] = {
    "messages": "callboard message list",
    "message": "callboard message send, show, resend, follow",
    "inbound-messages": "callboard message list --inbound",
    "inbound-message": "callboard message show, of one that came in",
    "message-retention": "callboard message keep",
}
SCHEMAS: dict[str, Schema] = {
    "messages": object_of({"messages": list_of(MESSAGE)}),
    "message": object_of({"message": MESSAGE, "events": list_of(STEP)}),
    "inbound-messages": object_of({"messages": list_of(INBOUND)}),
    "inbound-message": object_of({"message": INBOUND}),
    "message-retention": object_of({"companies": list_of(RETENTION)}),
}
