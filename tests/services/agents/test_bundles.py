"""Bundles keep the vendor's bytes, and only real edits count as a change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agents.bundles import (
    BundlePart,
    bundle_digest,
    decode_parts,
    encode_parts,
    read_facts,
    read_features,
    texts_digest,
)
from services.model import Provider

texts = st.text(max_size=40)
parts = st.lists(
    st.builds(BundlePart, kind=st.sampled_from(["agent", "engine", "tool"]), id=texts, text=texts), max_size=5
)

RETELL_AGENT: dict[str, Any] = {
    "agent_id": "agent_1",
    "agent_name": "Reception DE",
    "version": 12,
    "is_published": True,
    "voice_id": "11labs-Marissa",
    "voice_speed": 1.0,
    "language": "de-DE",
    "response_engine": {"type": "retell-llm", "llm_id": "llm_1", "version": 12},
    "last_modification_timestamp": 1_790_000_000_000,
    "field_of_the_future": {"kept": [1, 2.50, None]},
}
RETELL_LLM: dict[str, Any] = {
    "llm_id": "llm_1",
    "model": "gpt-5.1",
    "general_tools": [{"type": "end_call", "name": "end"}, {"type": "custom", "name": "look"}],
    "states": [{"name": "ask", "tools": [{"type": "custom", "name": "book"}]}],
    "last_modification_timestamp": 1_790_000_000_000,
}


def retell(
    agent: dict[str, Any] = RETELL_AGENT, engine: dict[str, Any] | None = RETELL_LLM
) -> list[BundlePart]:
    found = [BundlePart("agent", "agent_1", json.dumps(agent))]
    if engine is not None:
        found.append(BundlePart("engine", "llm_1", json.dumps(engine)))
    return found


@given(parts, parts)
def test_only_equal_texts_have_equal_digests(one: list[BundlePart], other: list[BundlePart]) -> None:
    assert texts_digest(one) == texts_digest(list(one))
    assert (texts_digest(one) == texts_digest(other)) == (one == other)


@given(parts)
def test_storing_gives_back_the_same_bytes(given_parts: list[BundlePart]) -> None:
    assert list(decode_parts(encode_parts(given_parts))) == given_parts


def test_spelling_and_order_do_not_change_the_digest() -> None:
    agent = RETELL_AGENT | {"voice_speed": 1}
    reordered = dict(reversed(agent.items()))
    spelled = BundlePart("agent", "agent_1", json.dumps(reordered, indent=3, ensure_ascii=True))
    same = [retell()[1], spelled]
    assert bundle_digest(Provider.RETELL, same) == bundle_digest(Provider.RETELL, retell())


@pytest.mark.parametrize(
    "change",
    [{"field_of_the_future": {}}, {"voice_id": "11labs-Adrian"}, {"version": 13}, {"is_published": False}],
)
def test_an_edit_changes_the_digest_even_in_a_field_nobody_knows(change: dict[str, Any]) -> None:
    assert bundle_digest(Provider.RETELL, retell(RETELL_AGENT | change)) != bundle_digest(
        Provider.RETELL, retell()
    )


def test_a_modification_time_alone_is_no_change() -> None:
    touched = retell(
        RETELL_AGENT | {"last_modification_timestamp": 5}, RETELL_LLM | {"last_modification_timestamp": 6}
    )
    assert bundle_digest(Provider.RETELL, touched) == bundle_digest(Provider.RETELL, retell())


def test_tool_statistics_are_no_change() -> None:
    def tool(calls: int, url: str = "https://example.test") -> list[BundlePart]:
        body = {"id": "tool_1", "tool_config": {"url": url}, "usage_stats": {"total_calls": calls}}
        return [BundlePart("tool", "tool_1", json.dumps(body))]

    before = bundle_digest(Provider.ELEVENLABS, tool(1))
    assert bundle_digest(Provider.ELEVENLABS, tool(99)) == before
    assert bundle_digest(Provider.ELEVENLABS, tool(1, "https://other.test")) != before


def test_a_retell_card_reads_the_llm() -> None:
    features = read_features(Provider.RETELL, retell())
    assert (features.name, features.release) == ("Reception DE", "v12 published")
    assert (features.voice, features.language, features.model) == ("Marissa", "de-DE", "gpt-5.1")
    assert features.function_count == 3


def test_a_retell_card_reads_a_flow_and_a_custom_llm() -> None:
    flow = {
        "conversation_flow_id": "f",
        "model_choice": {"type": "cascading", "model": "gpt-5"},
        "tools": [{}],
    }
    features = read_features(Provider.RETELL, retell(engine=flow))
    assert (features.model, features.function_count) == ("gpt-5", 1)
    own = RETELL_AGENT | {"response_engine": {"type": "custom-llm", "llm_websocket_url": "wss://x.test"}}
    features = read_features(Provider.RETELL, retell(own, engine=None))
    assert (features.model, features.function_count) == ("own LLM", None)


def test_an_elevenlabs_card() -> None:
    agent = {
        "agent_id": "agent_2",
        "name": "Booking\u202e Bot\x07",
        "version_id": "v",
        "branch_id": "b",
        "main_branch_id": "b",
        "conversation_config": {
            "agent": {
                "language": "de",
                "prompt": {
                    "llm": "gemini-2.5-flash",
                    "tool_ids": ["t1", "t2"],
                    "tools": [{"type": "webhook"}, {"type": "webhook"}, {"type": "system"}],
                    "built_in_tools": {"end_call": {"name": "end_call"}, "skip_turn": None},
                },
            },
            "tts": {"voice_id": "cjVigY5qzO86Huf0OWal", "stability": 0.5, "speed": 1.0},
        },
    }
    found = [BundlePart("agent", "agent_2", json.dumps(agent))]
    features = read_features(Provider.ELEVENLABS, found)
    assert features.name == "Booking Bot"
    assert (features.model, features.language, features.release) == ("gemini-2.5-flash", "de", "main branch")
    assert features.function_count == 3
    facts = dict(read_facts(Provider.ELEVENLABS, found))
    assert facts["stability"] == "0.5"
    assert facts["voice"] == "cjVigY5qzO86Huf0OWal"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(Provider),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            [
                "agent_name",
                "version",
                "voice_id",
                "language",
                "response_engine",
                "conversation_config",
                "name",
            ],
            json_values,
        ),
    ),
    json_values,
)
def test_fields_of_any_type_never_break_a_card(provider: Provider, agent: object, engine: object) -> None:
    found = [BundlePart("agent", "a", json.dumps(agent)), BundlePart("engine", "e", json.dumps(engine))]
    features = read_features(provider, found)
    assert isinstance(features.name, str)
    read_facts(provider, found)
