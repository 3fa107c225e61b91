"""From an integration to the adapter that speaks to it; kept open while it stays the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from services.clock import Clock
from services.errors import UsageError
from services.integrations.messages import adapters as names
from services.integrations.messages.port import MessageAdapter
from services.integrations.model import SIMULATED, IntegrationInfo, Resolved
from services.resilience import Policies, RateLimiter

if TYPE_CHECKING:
    from services.calls.service import CallService
    from services.calls.telephony import TelephonyService
    from services.integrations.messages.over_http import Line


class Adapters:
    """Open adapters by integration. Belongs to one event loop; `aclose` closes them all.

    `calls` and `telephony` are asked for when a message is to go by phone.
    """

    def __init__(
        self,
        policies: Policies,
        limiter: RateLimiter | None,
        clock: Clock,
        *,
        calls: Callable[[], CallService] | None,
        telephony: Callable[[], TelephonyService] | None,
        timeout: float = 30.0,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._policies = policies
        self._limiter = limiter
        self._clock = clock
        self._calls = calls
        self._telephony = telephony
        self._timeout = timeout
        self._sleep = sleep
        self._open: dict[tuple[int | None, str], tuple[Resolved, MessageAdapter]] = {}
        self._replaced: list[MessageAdapter] = []

    async def of(self, resolved: Resolved) -> MessageAdapter:
        """The adapter of an integration. Raises UsageError for options that cannot be."""
        key = (resolved.info.id, resolved.info.adapter)
        known = self._open.get(key)
        if known is not None and known[0] == resolved:
            return known[1]
        made = await asyncio.to_thread(self._make, resolved)  # imports its client
        if known is not None:
            # Somebody may still be using it: it is closed with everything else.
            self._replaced.append(known[1])
        self._open[key] = (resolved, made)
        return made

    async def aclose(self) -> None:
        opened = [*self._replaced, *(adapter for _, adapter in self._open.values())]
        self._replaced, self._open = [], {}
        for adapter in opened:
            await adapter.aclose()

    def _make(self, resolved: Resolved) -> MessageAdapter:
        info = resolved.info
        policy = self._policies.of(info.policy, limiter=self._limiter)
        if info.adapter == SIMULATED:
            from services.integrations.messages.simulated import SimulatedAdapter

            return SimulatedAdapter(policy)
        if info.adapter == names.SMTP:
            from services.integrations.messages.smtp import SmtpAdapter

            return SmtpAdapter(info, resolved.secret, policy, self._clock, timeout=self._timeout)
        if info.adapter == names.PHONE:
            from services.integrations.messages.phone import PhoneAdapter

            if self._calls is None or self._telephony is None:
                raise UsageError("There are no calls here", advice="Use another channel", code="no_calls")
            return PhoneAdapter(info, self._calls, self._telephony, policy)
        return self._over_http(resolved)

    def _over_http(self, resolved: Resolved) -> MessageAdapter:
        info = resolved.info
        if info.adapter == names.TWILIO_SMS:
            from services.integrations.messages import twilio

            line = self._line("Twilio", resolved, user=twilio.account_of(info), dialect="twilio")
            return twilio.TwilioAdapter(info, line)
        if info.adapter == names.WHATSAPP:
            from services.integrations.messages import whatsapp

            return whatsapp.WhatsAppAdapter(info, self._line("WhatsApp", resolved, dialect="meta"))
        if info.adapter == names.CHAT:
            from services.integrations.messages.chat import ChatAdapter
            from services.security import Secret

            # The secret signs and is never sent.
            unsigned = Resolved(info, Secret(""))
            return ChatAdapter(self._line(info.name, unsigned), resolved.secret, self._clock)
        if info.adapter == names.GATEWAY:
            from services.integrations.messages.gateway import GatewayAdapter

            return GatewayAdapter(self._line(info.name, resolved))
        raise UsageError(
            f"{info.name} does not send messages",
            advice="list integrations with: callboard integration list",
            code="wrong_kind",
        )

    def _line(self, vendor: str, resolved: Resolved, *, user: str = "", dialect: str = "plain") -> Line:
        from services.integrations.messages.over_http import Line

        info: IntegrationInfo = resolved.info
        policy = self._policies.of(info.policy, limiter=self._limiter)
        return Line(
            vendor,
            info.base_url,
            resolved.secret,
            policy,
            self._clock,
            timeout=self._timeout,
            sleep=self._sleep,
            user=user,
            dialect=dialect,
        )
