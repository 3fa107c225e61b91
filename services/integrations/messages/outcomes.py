"""What an order that did not simply succeed makes of its message."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from services.errors import ServiceError
from services.integrations.effects import NOT_SENT, EffectRow, EffectState
from services.integrations.messages.model import MessageState, Report
from services.integrations.messages.port import error_info
from services.model import ErrorInfo

MAYBE_SENT: Final = "It may have been sent: ask the recipient before callboard message resend"


def told(effect: EffectRow) -> Report:
    """What a failed or uncertain order makes of its message."""
    error = effect.error or ErrorInfo("transient", "It is not known what became of it", "")
    if effect.state is EffectState.FAILED:
        # Under its key it may be tried again: each try is a step of its own.
        step = f"not sent/{effect.attempts}" if NOT_SENT in effect.result else ""
        return Report(MessageState.FAILED, detail=error.message, error=error, dedup=step)
    # Its own advice may be to try again, which is for what certainly did not happen.
    return Report(MessageState.UNKNOWN, detail=error.message, error=replace(error, advice=MAYBE_SENT))


def lost(error: ServiceError) -> Report:
    """Nobody could say whether it was taken over."""
    told = replace(error_info(error), advice=MAYBE_SENT)
    return Report(MessageState.UNKNOWN, detail=error.message, error=told)


def never() -> Report:
    """The provider was asked, and has it not."""
    error = ErrorInfo(
        "transient", "It was never taken over", "It is safe to send it again: callboard message resend"
    )
    return Report(MessageState.FAILED, detail=error.message, error=error)
