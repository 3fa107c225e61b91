"""The check of a brief against an independent reading of the vendor's rules: the simulator's."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.agents import BundlePart
from services.calls.brief import check_brief, conversation_config, usable
from services.calls.brief_payload import put
from services.calls.model import Brief, Phase, TransportKind
from services.model import Provider
from services.simulator.elevenlabs_terms import OVERRIDABLE, Refusal, admit

TEXTS = st.sampled_from(["", "plain", "for {{a}}", "{{ b }} of {{c}}", "at {{system__time}}"])
VALUES = st.one_of(st.text(max_size=4), st.integers(1, 9), st.just(None), st.just(["x"]), st.just([]))
PATHS = st.sampled_from([*sorted(OVERRIDABLE - {"conversation.text_only"}), "agent.mood", "moon.phase"])
TEXT_VALUED = ("agent.first_message", "agent.language", "agent.prompt.prompt")
"""Anything else would not be an override but a mistake."""


@st.composite
def calls(draw: Any) -> tuple[dict[str, Any], Brief, TransportKind]:
    """An agent with some permissions, and a brief with some overrides."""
    allowed: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(sorted(OVERRIDABLE)), unique=True)):
        put(allowed, tuple(path.split(".")), True)
    agent = {
        "conversation_config": {
            "agent": {
                "first_message": draw(TEXTS),
                "prompt": {"prompt": draw(TEXTS)},
                "dynamic_variables": {
                    "dynamic_variable_placeholders": draw(
                        st.dictionaries(st.sampled_from(["a", "b"]), st.just("x"))
                    )
                },
            },
            "conversation": {"text_only": draw(st.booleans())},
        },
        "platform_settings": {
            "overrides": {
                "conversation_config_override": allowed,
                "custom_llm_extra_body": draw(st.booleans()),
            }
        },
    }
    overrides: dict[str, Any] = {}
    for path in draw(st.lists(PATHS, unique=True, max_size=5)):
        value = draw(TEXTS if path in TEXT_VALUED else VALUES)
        put(overrides, tuple(path.split(".")), value)
    if draw(st.booleans()):
        overrides["custom_llm_extra_body"] = draw(st.sampled_from([{}, {"k": 1}]))
    brief = Brief(
        system_prompt=draw(TEXTS),
        first_message=draw(TEXTS),
        language=draw(st.sampled_from(["", "de"])),
        phases=tuple(draw(st.lists(st.builds(Phase, name=st.just("p"), text=TEXTS), max_size=2))),
        variables=draw(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 3))),
        overrides=overrides,
    )
    return agent, brief, draw(st.sampled_from([TransportKind.TEXT, TransportKind.MICROPHONE]))


@given(calls())
@settings(max_examples=600, deadline=None)
def test_the_vendor_refuses_exactly_what_the_check_says(call: tuple[Any, Brief, TransportKind]) -> None:
    agent, brief, transport = call
    parts = check_brief(brief, Provider.ELEVENLABS, [BundlePart("agent", "a", json.dumps(agent))], transport)
    is_text_agent = agent["conversation_config"]["conversation"]["text_only"]
    asks_text = transport is TransportKind.TEXT and not is_text_agent
    sent = conversation_config(usable(brief, parts), text_only=asks_text)
    refusal = ""
    try:
        terms = admit(agent, sent)
    except Refusal as error:
        refusal = error.message
    expected = [part for part in parts if part.use == "refused"]
    assert bool(refusal) is bool(expected), (refusal, [part.name for part in expected])
    if not refusal:
        used = {part.key for part in parts if part.use == "used"}
        if ("first_message",) in used:
            assert terms.first_message == brief.first_message
        if ("language",) in used:
            assert terms.language == "de"
