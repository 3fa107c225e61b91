"""A language model: the chat, embedding and model endpoints of OpenAI's API, and Anthropic's messages.

    POST /llm/v1/chat/completions    POST /llm/v1/embeddings    GET /llm/v1/models
    POST /llm/anthropic/v1/messages  GET  /llm/anthropic/v1/models

It decides by counting words: of the values a schema allows it takes the one whose line in the request has
most words in common with what is asked. Vectors are counted words and parts of words, hashed; words of one
topic (`price`, `cost`, `Preis`, …) count as the same, so that what is meant alike is near.

Words in the last message make it misbehave: `[bad-json]` `[unknown-agent]` `[refusal]` `[cut]` `[429]`
`[529]` `[no-schema]` (knows no JSON schemas) `[no-json]` (nor JSON mode) `[no-temperature]`
`[new-limit]` (wants max_completion_tokens) `[no-usage]`. And it can be told in advance:

    POST   /llm/__script    {"replies": [{"content": text} | {"status": 529} | {"refusal": text}, …]}, one for
                            each of the next requests for a decision
    GET    /llm/__requests  the bodies it was sent, oldest first    DELETE = forget them and the script
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from services.simulator.partners import Partner, Partners
from services.simulator.wire import Json, Reply, Request, answer

PREFIX: Final = "/llm"
ANTHROPIC: Final = "/llm/anthropic"
MODEL: Final = "sim-1"
EMBEDDING_MODEL: Final = "sim-embed"
DEMO_MODEL: Final = "gpt-5-mini"
"""What the demo asks for; any other name is answered, too, but not listed."""
DIMENSIONS: Final = 256
_MOST_KEPT: Final = 200
_CREATED: Final = 1_764_000_000
_WORD: Final = re.compile(r"[^\W\d_]+")
_MAGIC: Final = re.compile(r"\[([a-z0-9-]+)\]")

_TOPICS: Final[Mapping[str, str]] = {
    word: topic
    for topic, words in {
        "price": "price prices cost costs fee fees charge rate euro eur dollar preis preise kosten kostet",
        "time": "open opening opens hours close closes closing when öffnungszeiten geöffnet uhr zeiten",
        "cancel": "cancel cancels cancellation refund refunds money back storno stornieren erstattung",
        "booking": "book booking bookings reserve reservation reservations table appointment termin buchen",
        "animal": "pet pets dog dogs cat cats animal animals hund hunde haustier haustiere",
        "billing": "bill billing invoice invoices payment pay charged rechnung rechnungen zahlen",
        "parking": "park parking car cars garage parken parkplatz auto",
    }.items()
    for word in words.split()
}

_OPENAI_ERRORS: Final = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "insufficient_permissions"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}
_ANTHROPIC_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def openai_failure(status: int, message: str = "") -> Reply:
    """OpenAI's error body."""
    kind, code = _OPENAI_ERRORS.get(status, ("server_error", None))
    text = message or f"simulated failure {status}"
    return answer({"error": {"message": text, "type": kind, "param": None, "code": code}}, status)


def anthropic_failure(status: int, message: str = "") -> Reply:
    """Anthropic's error body."""
    kind = _ANTHROPIC_ERRORS.get(status, "api_error")
    error = {"type": kind, "message": message or f"simulated failure {status}"}
    return answer({"type": "error", "error": error, "request_id": "req_sim"}, status)


class LlmStore:
    """What was asked, and what is to be answered next."""

    def __init__(self) -> None:
        self.requests: deque[Json] = deque(maxlen=_MOST_KEPT)
        self.script: deque[Json] = deque()
        self._count = 0

    def next_id(self) -> str:
        self._count += 1
        return f"{self._count:06}"

    # OpenAI

    def chat(self, request: Request) -> Reply:
        body = request.json_object()
        if not body or not isinstance(body.get("messages"), list) or not body.get("model"):
            return openai_failure(400, "you must provide a model and messages")
        self._note("chat", body)
        asked = _texts(body["messages"])
        magic = set(_MAGIC.findall(asked[-1])) if asked else set()
        form = body.get("response_format") or {}
        kind = form.get("type", "text")
        if kind == "json_schema" and ("no-schema" in magic or "no-json" in magic):
            return openai_failure(
                400, "Invalid parameter: 'response_format' of type 'json_schema' is unknown"
            )
        if kind == "json_object" and "no-json" in magic:
            return openai_failure(400, "'response_format.type' must be 'text'")
        if "no-temperature" in magic and "temperature" in body:
            return openai_failure(400, "Unsupported value: 'temperature' does not support 0 with this model")
        if "new-limit" in magic and "max_tokens" in body:
            return openai_failure(
                400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead"
            )
        schema = (form.get("json_schema") or {}).get("schema") or _schema_in(body["messages"])
        said = self._said(asked, schema, magic)
        if isinstance(said, int):
            return openai_failure(said)
        text, refusal, finish = said
        if kind == "text" and not refusal:
            text = f"Here is the answer:\n```json\n{text}\n```"
        message = {"role": "assistant", "content": None if refusal else text, "refusal": refusal or None}
        tokens_in, tokens_out = sum(map(_tokens, asked)), _tokens(refusal or text)
        usage = {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        }
        reply = {
            "id": f"chatcmpl-{self.next_id()}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage,
        }
        if "no-usage" in magic:
            del reply["usage"]
        return answer(reply)

    def embeddings(self, request: Request) -> Reply:
        body = request.json_object()
        texts = (body or {}).get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not body or not body.get("model") or not isinstance(texts, list) or not texts:
            return openai_failure(400, "'input' and 'model' are required")
        if not all(isinstance(text, str) and text for text in texts):
            return openai_failure(400, "'input' is not valid: an empty text")
        self._note("embeddings", body)
        size = body.get("dimensions") or DIMENSIONS
        data = [
            {"object": "embedding", "index": index, "embedding": vector_of(text, size, body["model"])}
            for index, text in enumerate(texts)
        ]
        tokens = sum(map(_tokens, texts))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return answer({"object": "list", "data": data, "model": body["model"], "usage": usage})

    def models(self, request: Request) -> Reply:
        names = (MODEL, DEMO_MODEL, EMBEDDING_MODEL)
        data = [{"id": name, "object": "model", "created": _CREATED, "owned_by": "sim"} for name in names]
        return answer({"object": "list", "data": data})

    # Anthropic

    def messages(self, request: Request) -> Reply:
        if not request.headers.get(b"anthropic-version"):
            return anthropic_failure(400, "anthropic-version: header is required")
        body = request.json_object()
        if not body or not isinstance(body.get("messages"), list) or not body.get("max_tokens"):
            return anthropic_failure(400, "max_tokens and messages: Field required")
        self._note("messages", body)
        asked = _texts(body["messages"])
        magic = set(_MAGIC.findall(asked[-1])) if asked else set()
        tools = body.get("tools") or [{"name": "answer", "input_schema": {}}]
        said = self._said(asked, tools[0].get("input_schema") or {}, magic)
        if isinstance(said, int):
            return anthropic_failure(said)
        text, refusal, finish = said
        stop = {"stop": "tool_use", "length": "max_tokens"}[finish]
        content: list[Json] = [{"type": "text", "text": refusal}] if refusal else []
        if not refusal:
            content.append(
                {
                    "type": "tool_use",
                    "id": f"toolu_{self.next_id()}",
                    "name": tools[0]["name"],
                    "input": _object(text),
                }
            )
        tokens_in = sum(map(_tokens, [str(body.get("system", "")), *asked]))
        usage = {"input_tokens": tokens_in, "output_tokens": _tokens(refusal or text)}
        return answer(
            {
                "id": f"msg_{self.next_id()}",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": content,
                "stop_reason": "refusal" if refusal else stop,
                "stop_sequence": None,
                "usage": {} if "no-usage" in magic else usage,
            }
        )

    def anthropic_models(self, request: Request) -> Reply:
        if not request.headers.get(b"anthropic-version"):
            return anthropic_failure(400, "anthropic-version: header is required")
        data = [{"type": "model", "id": MODEL, "display_name": "Sim", "created_at": "2026-01-01T00:00:00Z"}]
        return answer({"data": data, "has_more": False, "first_id": MODEL, "last_id": MODEL})

    # Steering

    def set_script(self, request: Request) -> Reply:
        replies = (request.json_object() or {}).get("replies")
        if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
            return answer({"error": "the body is {“replies”: [{“content”: …}, …]}"}, 400)
        self.script.extend(replies)
        return answer({"waiting": len(self.script)}, 201)

    def show_requests(self, request: Request) -> Reply:
        return answer({"requests": list(self.requests)})

    def forget(self, request: Request) -> Reply:
        self.requests.clear()
        self.script.clear()
        return answer({"forgotten": True})

    def _note(self, kind: str, body: Json) -> None:
        self.requests.append({"kind": kind, "body": body})

    def _said(
        self, asked: list[str], schema: Mapping[str, Any], magic: set[str]
    ) -> tuple[str, str, str] | int:
        """Text, refusal and how it ended; or the status it fails with."""
        if self.script:
            reply = self.script.popleft()
            if isinstance(reply.get("status"), int):
                return int(reply["status"])
            return str(reply.get("content", "")), str(reply.get("refusal", "")), str(reply.get("end", "stop"))
        for status in ("429", "529"):
            if status in magic:
                return int(status)
        if "refusal" in magic:
            return "", "I cannot help with that.", "stop"
        text = json.dumps(_decide(asked, schema, unknown="unknown-agent" in magic), ensure_ascii=False)
        if "cut" in magic:
            return text[: len(text) // 2], "", "length"
        return ("{ this is no JSON" if "bad-json" in magic else text), "", "stop"


def vector_of(text: str, size: int, model: str) -> list[float]:
    """A vector of length 1; texts that share words, parts of words or topics point alike."""
    vector = [0.0] * size
    for word in _WORD.findall(text.lower()):
        features = [(_TOPICS.get(word, word), 3.0)]
        features += [(word[at : at + 4], 0.3) for at in range(max(1, len(word) - 3))]
        for feature, weight in features:
            raw = hashlib.blake2b(f"{model}\0{feature}".encode(), digest_size=8).digest()
            vector[int.from_bytes(raw[:4], "big") % size] += weight if raw[4] & 1 else -weight
    length = math.sqrt(sum(value * value for value in vector))
    if not length:
        vector[0] = length = 1.0
    return [round(value / length, 8) for value in vector]


def _decide(asked: list[str], schema: Mapping[str, Any], *, unknown: bool) -> Json:
    """An object of the schema."""
    members = schema.get("properties") or {}
    found: Json = {}
    for name, shape in members.items():
        kinds = shape.get("type")
        kind = next((k for k in kinds if k != "null"), "string") if isinstance(kinds, list) else kinds
        if shape.get("enum"):
            found[name] = "agent-that-is-none" if unknown else _nearest(shape["enum"], asked)
        elif kind in ("number", "integer"):
            found[name] = 0.8 if kind == "number" else 1
        elif kind == "boolean":
            found[name] = True
        elif kind == "array":
            found[name] = []
        else:
            found[name] = "Its words fit best"
    return found


def _nearest(choices: list[Any], asked: list[str]) -> Any:
    """The choice whose line has most words, topics counted alike, in common with the end of what is asked."""
    # Where a decision had to be repaired, what was asked first is still what is asked.
    lines = "\n".join(asked).splitlines()
    wanted = _topics(asked[0][asked[0].rfind("<request>") :] if asked else "")

    def score(choice: Any) -> int:
        mark = json.dumps(choice)
        own = [line for line in lines if f'"id": {mark}' in line or f'"id":{mark}' in line]
        return len(_topics(" ".join(own)) & wanted)

    usable = [choice for choice in choices if choice not in ("", None, "none")] or choices
    best = max(usable, key=score)
    return best if score(best) or "none" not in choices else "none"


def _topics(text: str) -> set[str]:
    words = (word for word in _WORD.findall(text.lower()) if len(word) > 3 or word in _TOPICS)
    return {_TOPICS.get(word, word) for word in words}


def _texts(messages: list[Any]) -> list[str]:
    """What the user said, oldest first; parts of one message joined."""
    found: list[str] = []
    for message in messages:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            found.append("\n".join(_part(part) for part in parts if isinstance(part, dict)))
    return found


def _part(part: Json) -> str:
    if part.get("type") == "tool_result":
        return str(part.get("content") or "")
    return str(part.get("text") or "")


def _schema_in(messages: list[Any]) -> Mapping[str, Any]:
    """A schema that is written out in the request, for endpoints that know none."""
    for text in (str(message.get("content")) for message in messages if isinstance(message, dict)):
        if (at := text.find('{"type": "object"')) >= 0:
            try:
                found, _ = json.JSONDecoder().raw_decode(text[at:])
            except ValueError:
                continue
            return found if isinstance(found, dict) else {}
    return {}


def _object(text: str) -> Any:
    try:
        found = json.loads(text)
    except ValueError:
        return {"text": text}
    return found if isinstance(found, dict) else {"value": found}


def _tokens(text: str) -> int:
    return max(1, len(text) // 4)


def mount(partners: Partners) -> LlmStore:
    """Adds the routes and the two partners."""
    store = LlmStore()
    add = partners.router.add
    add("POST", f"{PREFIX}/v1/chat/completions", "write", store.chat)
    add("POST", f"{PREFIX}/v1/embeddings", "write", store.embeddings)
    add("GET", f"{PREFIX}/v1/models", "list", store.models)
    add("POST", f"{ANTHROPIC}/v1/messages", "write", store.messages)
    add("GET", f"{ANTHROPIC}/v1/models", "list", store.anthropic_models)
    add("POST", f"{PREFIX}/__script", "other", store.set_script, public=True)
    add("GET", f"{PREFIX}/__requests", "other", store.show_requests, public=True)
    add("DELETE", f"{PREFIX}/__requests", "other", store.forget, public=True)
    # The longer path first: the first that fits says how an error looks.
    partners.add(Partner(ANTHROPIC, anthropic_failure, words=("anthropic", "llm")))
    partners.add(Partner(PREFIX, openai_failure, words=("openai", "llm")))
    return store
