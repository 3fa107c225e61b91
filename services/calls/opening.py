"""Which transports there are for an agent, why one is not available, and how each is made.

Only the transport that is chosen is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.calls.access import VendorAccess
from services.calls.model import Brief, CallTarget, TransportKind
from services.clock import Clock
from services.errors import ServiceError, UsageError
from services.model import Provider

if TYPE_CHECKING:
    from services.agents import BundlePart
    from services.calls.scenario.model import Scenario
    from services.calls.transport import Transport

WITH_DEVICES = frozenset({TransportKind.MICROPHONE, TransportKind.WEBRTC})
"""Transports that need a microphone and a loudspeaker."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a transport is made of. `access` is None for a mock."""

    target: CallTarget
    kind: TransportKind
    access: VendorAccess | None
    brief: Brief
    tools: Sequence[str] = ()
    scenario: Scenario | None = None
    """What a mock plays."""
    seed: int = 0
    bundle: tuple[BundlePart, ...] = ()


def unavailable(kind: TransportKind, target: CallTarget, audio_problem: str) -> str:
    """Why an agent cannot be called so from here, in words; empty when it can."""
    if kind is TransportKind.MOCK:
        return ""
    if not target.provider:
        return "there is no agent behind a mock"
    if kind is TransportKind.MICROPHONE and target.provider != Provider.ELEVENLABS.value:
        return "Retell's agents are spoken to over webrtc"
    if kind is TransportKind.WEBRTC:
        from services.calls.webrtc import webrtc_problem

        missing = webrtc_problem(Provider(target.provider))
        if missing:
            return missing
    return audio_problem if kind in WITH_DEVICES else ""


def make_transport(wanted: Wanted, clock: Clock) -> Transport:
    """The transport, not opened yet. Blocking for its import: call it in a thread. Raises ServiceError.

    The phone is made elsewhere: it needs an intent log.
    """
    if wanted.kind is TransportKind.MOCK:
        return _mock(wanted, clock)
    access = wanted.access
    if access is None:
        raise UsageError("There is no agent to call", advice="Choose an agent, or the mock transport")
    if wanted.kind is TransportKind.WEBRTC:
        return _webrtc(wanted, access)
    if access.provider is Provider.ELEVENLABS:
        from services.calls.transports.elevenlabs_socket import ElevenLabsSocket

        return ElevenLabsSocket(
            access,
            wanted.target.agent_id,
            tools=wanted.tools,
            text_only=wanted.kind is TransportKind.TEXT,
            ask_text_only=not is_text_only(wanted.bundle),
            public=not needs_authorization(wanted.bundle),
        )
    if wanted.kind is TransportKind.TEXT:
        from services.calls.transports.retell_text import RetellText

        return RetellText(access, wanted.target.agent_id)
    raise UsageError(
        f"A {access.provider} agent cannot be called over {wanted.kind}",
        advice="Use webrtc, text or phone",
        code="not_offered",
    )


def import_transport(kind: TransportKind, provider: str) -> None:
    """Load a transport's module, which takes its time: call it in a thread."""
    import importlib

    name = {
        TransportKind.MOCK: "mock",
        TransportKind.PHONE: "phone",
        TransportKind.MICROPHONE: "elevenlabs_socket",
        TransportKind.TEXT: "retell_text" if provider == Provider.RETELL.value else "elevenlabs_socket",
        TransportKind.WEBRTC: "retell_gateway" if provider == Provider.RETELL.value else "elevenlabs_livekit",
    }[kind]
    importlib.import_module(f"services.calls.transports.{name}")


def _webrtc(wanted: Wanted, access: VendorAccess) -> Transport:
    from services.calls.webrtc import webrtc_problem

    missing = webrtc_problem(access.provider)
    if missing:
        message, _, advice = missing.partition(". ")
        raise ServiceError(message, advice=advice, code="webrtc_missing")
    if access.provider is Provider.ELEVENLABS:
        from services.calls.transports.elevenlabs_livekit import ElevenLabsLivekit

        return ElevenLabsLivekit(access, wanted.target.agent_id, tools=wanted.tools)
    from services.calls.transports.retell_gateway import RetellGateway

    return RetellGateway(access, wanted.target.agent_id)


def _mock(wanted: Wanted, clock: Clock) -> Transport:
    from services.calls.transports.mock import MockTransport

    if wanted.scenario is None:
        raise UsageError("A mock needs a scenario to play", code="no_scenario")
    return MockTransport(wanted.scenario, clock=clock, seed=wanted.seed)


def read_scenario(path: Path | None) -> Scenario:
    """The scenario of a file, or the built-in one. Blocking. Raises UsageError for a wrong file."""
    from services.calls.scenario import default_scenario, load_scenario

    return load_scenario(path) if path is not None else default_scenario()


def needs_authorization(bundle: Sequence[BundlePart]) -> bool:
    """Whether an ElevenLabs agent asks for a signed URL. Unknown counts as yes: a key is at hand."""
    agent = agent_document(bundle)
    settings = agent.get("platform_settings")
    auth = settings.get("auth") if isinstance(settings, Mapping) else None
    return bool(auth.get("enable_auth", True)) if isinstance(auth, Mapping) else True


def is_text_only(bundle: Sequence[BundlePart]) -> bool:
    """Whether an ElevenLabs agent is text only by itself, and need not be asked to be."""
    config = agent_document(bundle).get("conversation_config")
    conversation = config.get("conversation") if isinstance(config, Mapping) else None
    return bool(conversation.get("text_only")) if isinstance(conversation, Mapping) else False


def agent_document(bundle: Sequence[BundlePart]) -> dict[str, Any]:
    """The agent's own JSON of a mirrored bundle; empty when there is none."""
    for part in bundle:
        if part.kind == "agent":
            data = json.loads(part.text)
            return data if isinstance(data, dict) else {}
    return {}
