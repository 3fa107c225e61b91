"""A transport that does what a test tells it, and remembers what the session did with it."""

from __future__ import annotations

from typing import Any, ClassVar

from services.calls.messages import Connected, Message, StateChanged
from services.calls.model import Brief, CallState, Capabilities, EndReason, TransportKind
from services.calls.transport import AgentAudio, Transport
from services.errors import ServiceError


class FakeTransport(Transport):
    """Live at once; `rates` makes it carry audio, `refusal` makes its opening fail."""

    kind: ClassVar[TransportKind] = TransportKind.TEXT

    def __init__(
        self,
        *,
        rates: tuple[int, int] = (0, 0),
        refusal: ServiceError | None = None,
        text: bool = True,
        aftermath: list[Message] | None = None,
    ) -> None:
        super().__init__()
        self.capabilities = Capabilities(
            audio=bool(rates[0]), text=text, context=True, approvals=True, simulated=True
        )
        self._rates = rates
        self._refusal = refusal
        self._aftermath = aftermath or []
        self.sent: list[tuple[str, Any]] = []
        self.brief: Brief | None = None

    async def _open(self, brief: Brief) -> None:
        self.brief = brief
        self._emit(StateChanged(CallState.CONNECTING))
        if self._refusal is not None:
            raise self._refusal
        form = "pcm" if self._rates[0] else ""
        self._emit(Connected("conv_1", *self._rates, form, form))
        self._emit(StateChanged(CallState.LIVE))

    def tell(self, *events: Message | AgentAudio) -> None:
        for event in events:
            self._emit(event)

    def over_now(self, reason: EndReason, detail: str = "") -> None:
        self._end(reason, detail, by="agent")

    async def send_audio(self, pcm: bytes) -> None:
        self.sent.append(("audio", pcm))

    async def send_text(self, text: str) -> None:
        self.sent.append(("text", text))

    async def send_context(self, text: str) -> None:
        self.sent.append(("context", text))

    async def send_tool_result(self, tool_id: str, result: str, ok: bool) -> None:
        self.sent.append(("tool", (tool_id, result, ok)))

    async def approve(self, tool_id: str, approved: bool) -> None:
        self.sent.append(("approve", (tool_id, approved)))

    async def aftermath(self) -> list[Message]:
        return self._aftermath
