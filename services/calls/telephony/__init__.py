"""Telephone calls: numbers, who may be dialled, a company's Twilio account, how an order to dial is kept.

Light to import; what needs httpx or the database is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from services.calls.telephony.intent import IntentLog, Placed
from services.calls.telephony.numbers import (
    Permission,
    cost_warning,
    parse_number,
    parse_rule,
    permission,
    require_permission,
)

if TYPE_CHECKING:
    from services.calls.telephony.accounts import TelephonyInfo, TelephonyService
    from services.calls.telephony.twilio import TwilioAccount, TwilioCall, TwilioClient
    from services.calls.telephony.vendors import (
        PhoneVendor,
        VendorNumber,
        open_phone,
    )

__all__ = [
    "IntentLog",
    "Permission",
    "PhoneVendor",
    "Placed",
    "TelephonyInfo",
    "TelephonyService",
    "TwilioAccount",
    "TwilioCall",
    "TwilioClient",
    "VendorNumber",
    "cost_warning",
    "open_phone",
    "parse_number",
    "parse_rule",
    "permission",
    "require_permission",
]

_HOME: Final = {
    "PhoneVendor": "vendors",
    "TelephonyInfo": "accounts",
    "TelephonyService": "accounts",
    "TwilioAccount": "twilio",
    "TwilioCall": "twilio",
    "TwilioClient": "twilio",
    "VendorNumber": "vendors",
    "open_phone": "vendors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
