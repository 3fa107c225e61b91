"""What a simulator remembers from one run to the next: its CRM, its text messages, what ids it gave out.

Every command on the demo starts a simulator and ends it; without this the second one would not know what the
first one was told.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from services.simulator.partner_hubspot import HubSpotAccount
from services.simulator.partner_whatsapp import WhatsApp
from services.simulator.twilio_messages import TwilioMessages

log = logging.getLogger(__name__)

MOST: Final = 500
"""The latest of each that are remembered."""


class Memory:
    """The file of one simulator; without one nothing is remembered. Blocking, and small."""

    def __init__(
        self, file: Path | None, hubspot: HubSpotAccount, messages: TwilioMessages, whatsapp: WhatsApp
    ) -> None:
        self._file = file
        self._hubspot = hubspot
        self._messages = messages
        self._whatsapp = whatsapp

    def recall(self) -> None:
        """Take up what the last run left. What cannot be read is forgotten."""
        if self._file is None:
            return
        try:
            data = json.loads(self._file.read_text(encoding="utf-8"))
            self._hubspot.recall(data["hubspot"])
            self._messages.recall(data["twilio"])
            self._whatsapp.recall(int(data["whatsapp"]))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read and is left: %s", self._file, type(error).__name__)

    def remember(self) -> None:
        """Write it down, for the next run. A disk that is full loses no more than that."""
        if self._file is None:
            return
        data: dict[str, Any] = {
            "hubspot": [
                {**asdict(record), "links": sorted(record.links)}
                for record in list(self._hubspot.records.values())[-MOST:]
            ],
            "twilio": [asdict(sms) for sms in list(self._messages.sent.values())[-MOST:]],
            "whatsapp": self._whatsapp.given,
        }
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error)
