"""Language models spoken to: one question, one JSON object, whatever the endpoint can do to make sure of it.

`openai`: `POST /chat/completions` with a JSON schema as the answer's format; an endpoint that does not know
that is asked for plain JSON mode, then just for JSON. `anthropic`: `POST /v1/messages` with one tool, the
answer, that it has to call. Sources: the two vendors' API references.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.errors import Category, ServiceError
from services.http.client import Call, Http
from services.http.wire import wrong_shape
from services.integrations.llm.adapters import ANTHROPIC, OPENAI
from services.integrations.llm.endpoints import Endpoints, models_of, number_of, object_of
from services.integrations.llm.model import Prices, Question, Reply, Usage
from services.integrations.model import Resolved
from services.resilience import Policy, Subject
from services.text import clean_line

MAX_TOKENS: Final = 512
VERSION: Final = {"anthropic-version": "2023-06-01"}
LONGEST_ANSWER: Final = 20_000
"""Characters of an answer that are looked at."""

_FORMATS: Final = ("json_schema", "json_object", "text")
_NOT_UNDERSTOOD: Final = frozenset({"invalid_request", "refused", "not_supported"})
"""Codes of an endpoint that does not know a parameter."""
_FORMAT_WORDS: Final = re.compile(
    r"response_format|json_schema|json_object|json mode|structured output", re.IGNORECASE
)
_FENCED: Final = re.compile(r"```(?:json)?\s*(\{.*?\})\s*```", re.DOTALL)


@dataclass(slots=True)
class Quirks:
    """What an endpoint turned out not to know. Kept for as long as the program runs."""

    form: int = 0
    """How far down `_FORMATS` one has to go."""
    new_limit: bool = False
    """Whether the limit is called `max_completion_tokens`, as with OpenAI's reasoning models."""
    no_temperature: bool = False

    def learn(self, error: ServiceError) -> bool:
        """Take in why a request was refused; whether another one may do better."""
        if error.category is not Category.PERMANENT or error.code not in _NOT_UNDERSTOOD:
            return False
        said = error.message
        if not self.new_limit and "max_completion_tokens" in said:
            self.new_limit = True
        elif not self.no_temperature and "temperature" in said:
            self.no_temperature = True
        elif self.form + 1 < len(_FORMATS) and _FORMAT_WORDS.search(said):
            self.form += 1
        else:
            return False
        return True


class LlmClient(Protocol):
    """One model at one endpoint."""

    name: str
    model: str
    prices: Prices

    async def ask(self, question: Question, *, subject: Subject | None) -> Reply:
        """Its answer, which may be a refusal. Raises ServiceError."""
        ...

    async def probe(self) -> str:
        """Ask which models there are: free, and counts against nobody's limits. Raises ServiceError."""
        ...

    @property
    def policy(self) -> Policy:
        """What its requests go through."""
        ...


class LlmClients:
    """Opens clients by integration; each keeps what it learned of its endpoint."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._quirks: dict[tuple[str, str], Quirks] = {}

    async def open(self, where: Resolved) -> LlmClient:
        """The client of a configured integration. Raises ServiceError for a wrong option or address."""
        adapter, info = where.info.adapter, where.info
        quirks = self._quirks.setdefault((info.base_url, str(info.config.get("model"))), Quirks())
        if adapter == ANTHROPIC:
            http = await self._endpoints.of(where, header="x-api-key", prefix="", dialect="anthropic")
            return AnthropicClient(where, http, quirks)
        if adapter == OPENAI:
            return OpenAiClient(where, await self._endpoints.of(where, dialect="openai"), quirks)
        raise ServiceError(
            f"{where.info.policy} is no language model", advice="callboard integration list", code="no_model"
        )

    async def probe(self, where: Resolved) -> str:
        """Whether an integration of this kind answers, and what it found. Raises ServiceError."""
        return await (await self.open(where)).probe()


class _Client:
    def __init__(self, where: Resolved, http: Http, quirks: Quirks) -> None:
        config = where.info.config
        self.name = where.info.policy
        self.model = str(config.get("model") or "")
        self.prices = Prices(
            number_of(config.get("price_in"), "price_in"),
            number_of(config.get("price_out"), "price_out"),
            clean_line(str(config.get("currency") or "USD"))[:8],
        )
        self._max_tokens = int(number_of(config.get("max_tokens"), "max_tokens") or MAX_TOKENS)
        self._http = http
        self._quirks = quirks

    async def ask(self, question: Question, *, subject: Subject | None) -> Reply:
        while True:
            try:
                return await self._http.read(self._call(question), self._read, subject=subject)
            except ServiceError as error:
                if not self._quirks.learn(error):
                    raise
            # That it was asked counts once.
            subject = None

    def _call(self, question: Question) -> Call:
        raise NotImplementedError

    def _read(self, text: str) -> Reply:
        raise NotImplementedError

    async def _models(self, call: Call) -> str:
        return await models_of(self._http, call, self.model, self.name)

    @property
    def policy(self) -> Policy:
        return self._http.policy


class OpenAiClient(_Client):
    """Any endpoint that speaks OpenAI's chat completions."""

    async def probe(self) -> str:
        return await self._models(Call("GET", "/models"))

    def _call(self, question: Question) -> Call:
        form = _FORMATS[self._quirks.form]
        system = question.system
        if form != "json_schema":
            system += "\n\nAnswer with one JSON object of this schema and nothing else:\n" + json.dumps(
                question.schema, ensure_ascii=False
            )
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "system", "content": system}, *_conversation(question)],
            "max_completion_tokens" if self._quirks.new_limit else "max_tokens": self._max_tokens,
        }
        if not self._quirks.no_temperature:
            body["temperature"] = 0
        if form == "json_schema":
            schema = {"name": question.name, "strict": True, "schema": question.schema}
            body["response_format"] = {"type": form, "json_schema": schema}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        return Call("POST", "/chat/completions", body=body)

    def _read(self, text: str) -> Reply:
        data = object_of(text)
        choices = data.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        message = first.get("message") if isinstance(first, dict) else None
        if not isinstance(first, dict) or not isinstance(message, dict):
            raise wrong_shape("a message in 'choices'", data)
        content, refusal, ended = message.get("content"), message.get("refusal"), first.get("finish_reason")
        said = content if isinstance(content, str) else ""
        if ended == "content_filter":
            refusal = refusal or "its content filter stopped it"
        return Reply(
            said[:LONGEST_ANSWER],
            json_in(said),
            _name(data.get("model")) or self.model,
            _usage(data.get("usage"), "prompt_tokens", "completion_tokens"),
            refusal if isinstance(refusal, str) else "",
            ended == "length",
        )


class AnthropicClient(_Client):
    """Anthropic's messages, answered by a tool call."""

    async def probe(self) -> str:
        return await self._models(Call("GET", "/v1/models", params={"limit": 1000}, headers=VERSION))

    def _call(self, question: Question) -> Call:
        tool = {"name": question.name, "description": "The answer.", "input_schema": dict(question.schema)}
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self._max_tokens,
            "system": question.system,
            "messages": _conversation(question),
            "tools": [tool],
            "tool_choice": {"type": "tool", "name": question.name},
        }
        if not self._quirks.no_temperature:
            body["temperature"] = 0
        return Call("POST", "/v1/messages", body=body, headers=VERSION)

    def _read(self, text: str) -> Reply:
        data = object_of(text)
        content = data.get("content")
        if not isinstance(content, list):
            raise wrong_shape("a list in 'content'", content)
        parts = [part for part in content if isinstance(part, dict)]
        said = " ".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")
        called = next((part.get("input") for part in parts if part.get("type") == "tool_use"), None)
        ended = data.get("stop_reason")
        return Reply(
            (json.dumps(called, ensure_ascii=False) if called is not None else said)[:LONGEST_ANSWER],
            called if isinstance(called, dict) else json_in(said),
            _name(data.get("model")) or self.model,
            _usage(data.get("usage"), "input_tokens", "output_tokens"),
            (said or "it gave no reason") if ended == "refusal" else "",
            ended == "max_tokens",
        )


def json_in(text: str) -> Mapping[str, Any] | None:
    """The JSON object in an answer: the whole of it, in a code block, or from the first brace on."""
    text = text[:LONGEST_ANSWER]
    fenced = _FENCED.search(text)
    for candidate in (text, fenced[1] if fenced else "", text[text.find("{") :] if "{" in text else ""):
        try:
            found, _ = json.JSONDecoder().raw_decode(candidate.strip())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _conversation(question: Question) -> list[dict[str, str]]:
    messages = [{"role": "user", "content": question.user}]
    for theirs, ours in question.earlier:
        messages += [{"role": "assistant", "content": theirs}, {"role": "user", "content": ours}]
    return messages


def _name(value: object) -> str:
    return clean_line(value)[:100] if isinstance(value, str) else ""


def _usage(data: object, name_in: str, name_out: str) -> Usage:
    if not isinstance(data, dict):
        return Usage()
    return Usage(_count(data.get(name_in)), _count(data.get(name_out)))


def _count(value: object) -> int | None:
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31
    return value if usable and isinstance(value, int) else None
