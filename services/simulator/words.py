"""Believable raw material for simulated agents: names, languages, businesses, prompts, functions."""

from __future__ import annotations

import random
from dataclasses import dataclass

EPOCH_MS = 1_780_000_000_000
"""2026-05-28: every generated time lies before it, so that two starts with one seed are equal."""

DAY_MS = 86_400_000

RETELL_NAMES = (
    ("Reception DE", "de-DE"),
    ("Booking Bot", "en-US"),
    ("After Hours Line", "en-GB"),
    ("Empfang Zahnarztpraxis Müller", "de-DE"),
    ("Lead Qualifier", "en-US"),
    ("Accueil – Clinique Zoë", "fr-FR"),
    ("Appointment Reminder", "en-AU"),
    ("Recepción Madrid ☎", "es-ES"),
    ("Claims Intake", "en-US"),
    ("予約受付 東京", "ja-JP"),
    ("Order Status", "nl-NL"),
    ("Survey Caller", "pt-BR"),
)

ELEVENLABS_NAMES = (
    ("Concierge", "en"),
    ("Support Triage", "en"),
    ("Terminbuchung Berlin", "de"),
    ("Réservations Café Olé", "fr"),
    ("Renewals Outbound", "en"),
    ("استقبال العيادة", "ar"),
    ("Billing Help", "en"),
    ("Pizzeria Da Vinci 🍕", "it"),
    ("Test Drive Scheduler", "en"),
    ("Obsługa klienta", "pl"),
    ("Patient Intake", "en"),
    ("Hotel Night Desk", "es"),
)

_ROLES = (
    "Reception", "Booking Bot", "Support Line", "After Hours", "Renewals", "Intake", "Order Status",
    "Appointment Reminder", "Lead Qualifier", "Claims Desk", "Survey Caller", "Billing Help",
    "Delivery Updates", "Callback Desk", "Waitlist Manager", "Prescription Refills",
)  # fmt: skip

_PLACES = (
    ("DE", "de-DE"), ("AT", "de-DE"), ("UK", "en-GB"), ("US East", "en-US"), ("US West", "en-US"),
    ("Paris", "fr-FR"), ("Lyon", "fr-FR"), ("Madrid", "es-ES"), ("Milano", "it-IT"), ("Köln", "de-DE"),
    ("Amsterdam", "nl-NL"), ("Warszawa", "pl-PL"), ("São Paulo", "pt-BR"), ("Sydney", "en-AU"),
    ("Dublin", "en-GB"), ("Zürich", "de-DE"), ("Osaka", "ja-JP"), ("Mumbai", "en-IN"),
)  # fmt: skip

BUSINESSES = (
    "Northgate Dental", "Lindenhof Hotel", "Brightway Motors", "Casa Verde Clinic", "Harbour Physio",
    "Fjord Energy", "Oakfield Insurance", "Müller & Söhne Haustechnik", "Atelier Zoë", "Pine Street Vet",
    "Kessler Legal", "Solaris Travel",
)  # fmt: skip

TONES = ("warm and brief", "calm and precise", "friendly, never chatty", "formal and patient", "upbeat")


@dataclass(frozen=True, slots=True)
class Function:
    """A function an agent can call: its name, what it is for, and its parameters (name, description)."""

    name: str
    purpose: str
    parameters: tuple[tuple[str, str], ...]


FUNCTIONS = (
    Function("find_customer", "Look a caller up by phone number or e-mail address.",
             (("phone_number", "Caller's number in E.164 form"), ("email", "E-mail address, if given"))),
    Function("check_availability", "List free slots on a day.",
             (("date", "Day as YYYY-MM-DD"), ("service", "What the caller wants done"))),
    Function("book_appointment", "Book a slot that was offered before.",
             (("slot_id", "The slot as returned by check_availability"), ("name", "Caller's full name"))),
    Function("cancel_appointment", "Cancel a booking after the caller confirmed twice.",
             (("booking_id", "The booking's number"),)),
    Function("order_status", "Read where an order is.", (("order_number", "Eight digits"),)),
    Function("create_ticket", "Open a ticket for a person to follow up.",
             (("summary", "One sentence"), ("urgency", "low, normal or high"))),
    Function("quote_price", "Read the price of a service.", (("service", "Name of the service"),)),
    Function("opening_hours", "Opening hours of a branch.", (("branch", "City or street"),)),
    Function("send_directions", "Send directions to the caller by text message.", (("branch", "City"),)),
    Function("take_message", "Store a message for the team.", (("message", "Words of the caller"),)),
)  # fmt: skip


def agent_names(fixed: tuple[tuple[str, str], ...], count: int, rng: random.Random) -> list[tuple[str, str]]:
    """`count` different names, each with a locale: the fixed ones first, then roles in places."""
    names = list(fixed[:count])
    combinations = [(f"{role} {place}", locale) for role in _ROLES for place, locale in _PLACES]
    rng.shuffle(combinations)
    series = 1
    while len(names) < count:
        suffix = "" if series == 1 else f" {series}"
        names += [(name + suffix, locale) for name, locale in combinations[: count - len(names)]]
        series += 1
    return names


def prompt(rng: random.Random, name: str, locale: str) -> str:
    """A system prompt of a few paragraphs."""
    business = rng.choice(BUSINESSES)
    rules = [
        "Ask one question at a time and wait for the answer.",
        "Repeat names, dates and numbers back before you use them.",
        "Never promise a price or a time that a function did not return.",
        "If the caller is upset, say so kindly and offer a person.",
        "If you did not understand twice, offer to take a message.",
        "Spell out numbers: 14:30 is “half past two in the afternoon”.",
        "Do not talk about other customers.",
    ]
    rng.shuffle(rules)
    chosen = "\n".join(f"- {rule}" for rule in rules[: rng.randint(3, 6)])
    return (
        f"# Role\nYou are “{name}”, the voice of {business}. You are {rng.choice(TONES)}. "
        f"Speak the caller's language; start in {locale}.\n\n# Rules\n{chosen}\n\n"
        f"# Goal\nUnderstand what {{{{customer_name}}}} needs and solve it in under "
        f"{rng.choice((2, 3, 4, 5))} minutes."
    )


def pick(rng: random.Random, count: int) -> list[Function]:
    """`count` different functions in a stable order."""
    return sorted(rng.sample(FUNCTIONS, min(count, len(FUNCTIONS))), key=FUNCTIONS.index)


def hex_id(rng: random.Random, prefix: str, digits: int = 26) -> str:
    """An id in Retell's style: `agent_` and hexadecimal digits."""
    return f"{prefix}{rng.getrandbits(digits * 4):0{digits}x}"


def base32_id(rng: random.Random, prefix: str, length: int = 28) -> str:
    """An id in ElevenLabs' style: `agent_` and lower-case letters and digits."""
    return prefix + "".join(rng.choices("0123456789abcdefghjkmnpqrstvwxyz", k=length))
