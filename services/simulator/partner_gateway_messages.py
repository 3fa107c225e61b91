"""A simulated service that speaks the contract for messages (`COMMUNICATIONS_API_URL`), and a chat receiver.

Both below `/messages-gateway`. Messages come along as SMS do, on the telephone network's clock: queued, sent,
delivered. A recipient with `fail` in it does not get its message, one with `silent` is never heard of again.

`POST /messages-gateway/chat` takes what the chat adapter posts and checks its signature against the
simulator's key, when there is one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from dataclasses import dataclass
from typing import Final

from services.simulator.partners import Partner, Partners, plain_failure
from services.simulator.telephone import Telephone
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/messages-gateway"
CHANNELS: Final = ("sms", "email", "whatsapp", "phone", "chat")
_SENT_MS: Final = 500
_OVER_MS: Final = 1_200


@dataclass(slots=True)
class Held:
    """One message of the service."""

    id: str
    key: str
    request: Json
    status: str = "queued"

    def as_dict(self) -> Json:
        told: Json = {"id": self.id, "status": self.status, "sender": "simulated gateway"}
        if self.status == "failed":
            told["error"] = {"code": "rejected", "message": "The recipient does not take messages"}
        return told


class MessagesGateway:
    """The messages of one service."""

    def __init__(self, telephone: Telephone, key: str) -> None:
        self.sent: dict[str, Held] = {}
        self.chats: list[Json] = []
        self._telephone = telephone
        self._key = key
        self._count = itertools.count(1)

    def create(self, request: Request) -> Reply:
        body = request.json_object()
        key = request.headers.get(b"idempotency-key", b"").decode("latin-1")
        if not body or body.get("channel") not in CHANNELS or not body.get("to"):
            return _refuse(400, "channel and to are required")
        if not body.get("body") and not body.get("template"):
            return _refuse(400, "body or template is required")
        known = next((held for held in self.sent.values() if key and held.key == key), None)
        if known is not None:
            if known.request != body:
                return _refuse(422, "the idempotency key was used for another message")
            return answer(known.as_dict(), 200)
        held = Held(f"msg_{next(self._count):06d}", key, body)
        self.sent[held.id] = held
        self._telephone.at(_SENT_MS, lambda: self._become(held, "sent"))
        if "silent" not in str(body["to"]):
            over = "failed" if "fail" in str(body["to"]) else "delivered"
            self._telephone.at(_OVER_MS, lambda: self._become(held, over))
        return answer(held.as_dict(), 202)

    def get(self, request: Request, message_id: str) -> Reply:
        self._telephone.settle()
        held = self.sent.get(message_id)
        return _refuse(404, "there is no such message") if held is None else answer(held.as_dict())

    def find(self, request: Request) -> Reply:
        self._telephone.settle()
        key = request.query.get("idempotency_key", "")
        if not key:
            return _refuse(400, "idempotency_key is required")
        return answer({"messages": [held.as_dict() for held in self.sent.values() if held.key == key]})

    def chat(self, request: Request) -> Reply:
        """Public: who posts says so by a signature, if at all."""
        headers = request.headers
        message_id, stamp = headers.get(b"webhook-id", b""), headers.get(b"webhook-timestamp", b"")
        given = headers.get(b"webhook-signature", b"").decode("latin-1")
        if given:
            signed = message_id + b"." + stamp + b"." + request.body
            made = base64.b64encode(hmac.new(self._key.encode(), signed, hashlib.sha256).digest()).decode()
            if not hmac.compare_digest(given, f"v1,{made}"):
                return _refuse(401, "the signature is wrong")
        body = request.json_object()
        if not body or not body.get("to"):
            return _refuse(400, "to is required")
        self.chats.append({**body, "signed": bool(given)})
        return answer({"id": f"chat_{len(self.chats)}"}, 202)

    @staticmethod
    def _become(held: Held, status: str) -> None:
        held.status = status


def mount(partners: Partners, telephone: Telephone, key: str) -> MessagesGateway:
    """Add the service; it lives in the telephone network's time."""
    store = MessagesGateway(telephone, key)
    add = partners.router.add
    add("POST", f"{PREFIX}/messages", "write", store.create)
    add("GET", f"{PREFIX}/messages", "list", store.find)
    add("GET", f"{PREFIX}/messages/*", "detail", store.get)
    add("POST", f"{PREFIX}/chat", "write", store.chat, public=True)
    partners.add(Partner(PREFIX, plain_failure))
    return store


def _refuse(status: int, text: str) -> Reply:
    return answer({"error": {"message": text, "status": status}}, status)
