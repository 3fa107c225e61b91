"""What the simulated ElevenLabs workspace has left and which voices it has: `/v1/user`, `/v2/voices`, …

`usage` holds what a test or an operator wants the account to say instead (see `control`). Assumed: a voice
that the workspace does not have is answered 404 with `voice_not_found`, and left out of a list by ids.
"""

from __future__ import annotations

import datetime
import functools
from urllib.parse import parse_qsl

from services.clock import Clock
from services.model import Provider
from services.simulator import elevenlabs_data as data
from services.simulator.conversations import Conversations
from services.simulator.elevenlabs_replies import failure, invalid
from services.simulator.wire import Json, Reply, Request, Router, answer

_MOST = 100
_EMPTY = {
    "/v1/convai/mcp-servers": "mcp_servers",
    "/v1/convai/secrets": "secrets",
    "/v1/workspace/webhooks": "webhooks",
    "/v1/workspace/auth-connections": "auth_connections",
}
"""What the workspace has none of, by path, and the member of the list."""


class AccountRoutes:
    """Adds its routes to `router`."""

    def __init__(self, router: Router, conversations: Conversations, clock: Clock) -> None:
        self.usage: Json = {}
        self._conversations = conversations
        self._clock = clock
        add = router.add
        add("GET", "/v1/user", "account", self._user)
        add("GET", "/v1/user/subscription", "usage", self._subscription)
        add("GET", "/v1/convai/analytics/live-count", "usage", self._live_count)
        add("GET", "/v2/voices", "list", self._voices)
        add("GET", "/v1/voices/*", "detail", self._voice)
        for path, items in _EMPTY.items():
            add("GET", path, "list", functools.partial(_nothing, items))

    def _user(self, _: Request) -> Reply:
        user = data.user()
        return answer({**user, "subscription": {**user["subscription"], **self._said()}})

    def _subscription(self, _: Request) -> Reply:
        return answer({**data.subscription(), **self._said()})

    def _said(self) -> Json:
        """The end of the month, and what was set."""
        now = datetime.datetime.fromtimestamp(self._clock.now() / 1000, tz=datetime.UTC)
        after = (now.replace(day=28) + datetime.timedelta(days=4)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        said = {name: value for name, value in self.usage.items() if name != "count"}
        return {"next_character_count_reset_unix": int(after.timestamp()), **said}

    def _live_count(self, request: Request) -> Reply:
        wanted = set(request.query_all("agent_ids") + request.query_all("agent_id"))
        live = [
            item
            for item in self._conversations.of(Provider.ELEVENLABS)
            if item.ended_ms is None and (not wanted or item.agent_id in wanted)
        ]
        return answer({"count": self.usage.get("count", len(live))})

    def _voices(self, request: Request) -> Reply:
        query = request.query
        size, start = query.get("page_size", "10"), query.get("next_page_token", "0")
        if not size.isdecimal() or not 1 <= int(size) <= _MOST:
            message = "Input should be a valid integer from 1 to 100"
            return invalid("int_parsing", message, "query", "page_size", given=size)
        pairs = parse_qsl(request.query_string.decode("latin-1"))
        wanted = [value for name, value in pairs if name == "voice_ids"]
        if len(wanted) > _MOST:
            return invalid(
                "too_long", "List should have at most 100 items", "query", "voice_ids", given=wanted
            )
        search = query.get("search", "").lower()
        found = [
            voice
            for voice in data.voices()
            if (not wanted or voice["voice_id"] in wanted) and search in voice["name"].lower()
        ]
        first = int(start) if start.isdecimal() else 0
        page = found[first : first + int(size)]
        more = first + len(page) < len(found)
        return answer({
            "voices": page,
            "has_more": more,
            "total_count": len(found),
            "next_page_token": str(first + len(page)) if more else None,
        })  # fmt: skip

    def _voice(self, _: Request, voice_id: str) -> Reply:
        found = [voice for voice in data.voices() if voice["voice_id"] == voice_id]
        if found:
            return answer(found[0])
        return failure(404, "voice_not_found", f"A voice with voice_id {voice_id} was not found.")


def _nothing(items: str, _: Request) -> Reply:
    return answer({items: []})
