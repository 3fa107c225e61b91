from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.agents import BundlePart
from services.calls import brief_check
from services.calls.brief import BriefPart, check_brief, conversation_config, retell_override, usable
from services.calls.brief_payload import at, put
from services.calls.model import Brief, Phase, TransportKind
from services.model import Provider

MICROPHONE, TEXT, PHONE, WEBRTC, MOCK = (
    TransportKind.MICROPHONE,
    TransportKind.TEXT,
    TransportKind.PHONE,
    TransportKind.WEBRTC,
    TransportKind.MOCK,
)
ELEVENLABS, RETELL = Provider.ELEVENLABS, Provider.RETELL


def elevenlabs(
    *allowed: str,
    prompt: str = "You are a desk.",
    first: str = "Hello",
    declared: dict[str, Any] | None = None,
    extra: bool = False,
    text_only: bool = False,
    tools: str = "{}",
) -> tuple[BundlePart, ...]:
    permitted: dict[str, Any] = {}
    for path in allowed:
        put(permitted, tuple(path.split(".")), True)
    agent = {
        "conversation_config": {
            "agent": {
                "first_message": first,
                "prompt": {"prompt": prompt},
                "dynamic_variables": {"dynamic_variable_placeholders": declared or {}},
            },
            "conversation": {"text_only": text_only},
        },
        "platform_settings": {
            "overrides": {"conversation_config_override": permitted, "custom_llm_extra_body": extra}
        },
    }
    return (BundlePart("agent", "a", json.dumps(agent)), BundlePart("tool", "t", tools))


def retell(engine: str = "retell-llm", **members: Any) -> tuple[BundlePart, ...]:
    agent = {"agent_id": "a", "response_engine": {"type": engine}}
    return (
        BundlePart("agent", "a", json.dumps(agent)),
        BundlePart("engine", "e", json.dumps({"general_prompt": "You are {{role}}.", **members})),
    )


def uses(parts: tuple[BriefPart, ...]) -> dict[str, str]:
    return {part.name: part.use for part in parts}


def why(parts: tuple[BriefPart, ...], name: str) -> str:
    return next(part.why for part in parts if part.name == name)


# -- ElevenLabs -------------------------------------------------------------------------------------------


def test_an_override_that_is_not_permitted_refuses_the_call() -> None:
    brief = Brief(system_prompt="p", first_message="f", language="de", overrides={"tts": {"voice_id": "v"}})
    parts = check_brief(brief, ELEVENLABS, elevenlabs("agent.prompt.prompt", "agent.language"), MICROPHONE)
    assert uses(parts) == {
        "system prompt": "used",
        "first message": "refused",
        "language": "used",
        "override tts.voice_id": "refused",
    }
    assert "agent.first_message" in why(parts, "first message")
    assert "security settings" in why(parts, "first message")


def test_nothing_is_refused_without_overrides() -> None:
    assert check_brief(Brief(), ELEVENLABS, elevenlabs(), MICROPHONE) == ()


@pytest.mark.parametrize(
    ("bundle", "use"),
    [
        (elevenlabs(), "refused"),
        (elevenlabs("conversation.text_only"), "used"),
        (elevenlabs(text_only=True), "used"),
        ((), "used"),
    ],
)
def test_typing_needs_the_text_only_override(bundle: tuple[BundlePart, ...], use: str) -> None:
    assert uses(check_brief(Brief(), ELEVENLABS, bundle, TEXT)) == {"text only": use}


def test_what_elevenlabs_does_not_know_is_left_out() -> None:
    overrides = {"agent": {"mood": "happy", "prompt": {"llm": "x"}}, "tts": {"speed": None}, "turn": {}}
    brief = Brief(overrides=overrides)
    parts = check_brief(brief, ELEVENLABS, elevenlabs("agent.prompt.llm"), MICROPHONE)
    assert uses(parts) == {
        "override agent.mood": "ignored",
        "override agent.prompt.llm": "used",
        "override tts.speed": "ignored",
        "override turn": "ignored",
    }
    config = conversation_config(usable(brief, parts))
    assert config == {"conversation_config_override": {"agent": {"prompt": {"llm": "x"}}}}


def test_a_permission_for_a_whole_group_and_one_that_is_new() -> None:
    brief = Brief(overrides={"turn": {"soft_timeout_config": {"message": "m"}}, "tts": {"breath": 1}})
    bundle = elevenlabs("turn.soft_timeout_config", "tts.breath")
    assert set(uses(check_brief(brief, ELEVENLABS, bundle, MICROPHONE)).values()) == {"used"}
    assert uses(check_brief(brief, ELEVENLABS, elevenlabs(), MICROPHONE)) == {
        "override turn.soft_timeout_config.message": "refused",
        "override tts.breath": "ignored",
    }


@pytest.mark.parametrize(("extra", "use"), [(True, "used"), (False, "refused")])
def test_the_extra_body_has_its_own_switch(extra: bool, use: str) -> None:
    brief = Brief(overrides={"custom_llm_extra_body": {"k": 1}})
    parts = check_brief(brief, ELEVENLABS, elevenlabs(extra=extra), MICROPHONE)
    assert uses(parts) == {"custom_llm_extra_body": use}
    assert conversation_config(brief) == {"custom_llm_extra_body": {"k": 1}}


def test_the_briefs_own_field_comes_before_the_same_override() -> None:
    brief = Brief(first_message="mine", overrides={"agent": {"first_message": "theirs"}})
    parts = check_brief(brief, ELEVENLABS, elevenlabs("agent.first_message"), MICROPHONE)
    assert uses(parts) == {"first message": "used", "override agent.first_message": "ignored"}
    for each in (brief, usable(brief, parts)):
        override = conversation_config(each)["conversation_config_override"]
        assert override == {"agent": {"first_message": "mine"}}


def test_phases() -> None:
    phases = (Phase("rules", "r"), Phase("later", "l", after_turns=2, when="price"))
    brief = Brief(system_prompt="p", phases=phases)
    bundle = elevenlabs("agent.prompt.prompt")
    assert uses(check_brief(brief, ELEVENLABS, bundle, MICROPHONE))["phase later"] == "used"
    assert uses(check_brief(brief, ELEVENLABS, bundle, PHONE))["phase later"] == "ignored"
    assert uses(check_brief(brief, ELEVENLABS, bundle, PHONE, context=True))["phase later"] == "used"
    assert "/price/" in why(check_brief(brief, ELEVENLABS, bundle, MICROPHONE), "phase later")
    alone = check_brief(Brief(phases=phases), ELEVENLABS, bundle, MICROPHONE)
    assert uses(alone)["phase rules"] == "ignored"
    assert uses(check_brief(brief, ELEVENLABS, elevenlabs(), MICROPHONE))["phase rules"] == "refused"


def test_a_variable_that_the_agent_needs() -> None:
    bundle = elevenlabs(
        prompt="You serve {{ company }} at {{system__time}}, {{plan}}",
        first="Hi {{name}}",
        declared={"plan": "free"},
    )
    parts = check_brief(Brief(variables={"name": "Ana"}), ELEVENLABS, bundle, MICROPHONE)
    assert uses(parts) == {"variable name": "used", "variable company": "refused"}
    assert "system prompt" in why(parts, "variable company")


def test_the_briefs_texts_decide_which_variables_are_needed() -> None:
    bundle = elevenlabs("agent.prompt.prompt", "agent.first_message", prompt="{{old}}", first="{{older}}")
    brief = Brief(system_prompt="for {{new}}", first_message="Hello")
    parts = check_brief(brief, ELEVENLABS, bundle, MICROPHONE)
    assert uses(parts)["variable new"] == "refused"
    assert "variable old" not in uses(parts)
    assert "variable older" not in uses(parts)


def test_a_variable_that_only_a_tool_names_is_used_and_an_unknown_one_sent_all_the_same() -> None:
    tools = '{"schema": {"id": {"dynamic_variable": "customer_id"}, "url": "https://x.example/{{region}}"}}'
    brief = Brief(variables={"customer_id": 7, "region": "eu", "shoe_size": 43})
    parts = check_brief(brief, ELEVENLABS, elevenlabs(tools=tools), MICROPHONE)
    assert uses(parts) == {
        "variable customer_id": "used",
        "variable region": "used",
        "variable shoe_size": "ignored",
    }
    assert conversation_config(usable(brief, parts)) == {
        "dynamic_variables": {"customer_id": 7, "region": "eu", "shoe_size": 43}
    }


def test_an_agent_that_was_never_read() -> None:
    brief = Brief(system_prompt="p", variables={"x": 1}, overrides={"tts": {"speed": 1.1}})
    parts = check_brief(brief, ELEVENLABS, (), MICROPHONE)
    assert set(uses(parts).values()) == {"used"}
    assert "callboard sync" in why(parts, "system prompt")
    broken = (BundlePart("agent", "a", "not json"),)
    assert set(uses(check_brief(brief, ELEVENLABS, broken, MICROPHONE)).values()) == {"used"}


def test_sizes_and_the_beginning_of_a_text() -> None:
    brief = Brief(system_prompt="x" * 1001)
    (part,) = check_brief(brief, ELEVENLABS, elevenlabs("agent.prompt.prompt"), MICROPHONE)
    assert (part.size, part.tokens) == (1001, 251)
    assert part.preview.startswith("xxx")
    assert len(part.preview) < 300


# -- Retell -----------------------------------------------------------------------------------------------


def test_retell_replaces_no_prompt_but_the_first_words_and_the_language() -> None:
    brief = Brief(system_prompt="p", first_message="f", language="de-DE", variables={"role": "a desk"})
    parts = check_brief(brief, RETELL, retell(), WEBRTC)
    assert uses(parts) == {
        "system prompt": "ignored",
        "first message": "used",
        "language": "used",
        "variable role": "used",
    }
    override, variables = retell_override(usable(brief, parts))
    assert override == {"retell_llm": {"begin_message": "f"}, "agent": {"language": "de-DE"}}
    assert variables == {"role": "a desk"}


def test_a_flow_has_no_first_message() -> None:
    brief = Brief(first_message="f", overrides={"conversation_flow": {"model_temperature": 0}})
    parts = check_brief(brief, RETELL, retell("conversation-flow", general_prompt=""), PHONE)
    assert uses(parts) == {
        "first message": "ignored",
        "override conversation_flow.model_temperature": "used",
    }
    assert retell_override(usable(brief, parts))[0] == {"conversation_flow": {"model_temperature": 0}}


def test_typing_at_retell_takes_no_override() -> None:
    brief = Brief(
        first_message="f",
        language="de",
        overrides={"agent": {"voice_speed": 1.2}},
        phases=(Phase("later", "l", after_turns=1),),
        variables={"role": "x"},
    )
    parts = check_brief(brief, RETELL, retell(), TEXT)
    assert [name for name, use in uses(parts).items() if use == "used"] == ["variable role"]
    assert retell_override(usable(brief, parts)) == (None, {"role": "x"})


def test_retells_variables_are_texts_and_it_says_so() -> None:
    brief = Brief(variables={"role": 3.0, "vip": True, "size": 2.5, "name": "x"})
    names = {"general_prompt": "{{role}} {{vip}} {{size}} {{name}}"}
    parts = check_brief(brief, RETELL, retell(**names), WEBRTC)
    assert "sent as the text '3'" in why(parts, "variable role")
    assert "sent as" not in why(parts, "variable name")
    assert retell_override(brief)[1] == {"role": "3", "vip": "true", "size": "2.5", "name": "x"}


def test_a_variable_nobody_gives_retell() -> None:
    prompt = "{{role}} {{plan}} {{current_time}} {{user_number}} {{extracted}}"
    bundle = retell(
        general_prompt=prompt,
        default_dynamic_variables={"plan": "free"},
        general_tools=[{"type": "extract_dynamic_variable", "variables": [{"name": "extracted"}]}],
    )
    parts = check_brief(Brief(), RETELL, bundle, WEBRTC)
    assert uses(parts) == {"variable role": "ignored"}
    assert "as it is written" in why(parts, "variable role")


def test_overrides_retell_does_not_have() -> None:
    overrides = {
        "agent": {"voice_speed": 1.1, "agent_id": "other"},
        "retell_llm": {"general_prompt": "x", "model": "gpt"},
        "conversation_flow": {"model_choice": {}},
        "tts": {"speed": 1},
    }
    brief = Brief(overrides=overrides)
    parts = check_brief(brief, RETELL, retell(), WEBRTC)
    assert [name for name, use in uses(parts).items() if use == "used"] == [
        "override agent.voice_speed",
        "override retell_llm.model",
    ]
    assert retell_override(usable(brief, parts))[0] == {
        "agent": {"voice_speed": 1.1},
        "retell_llm": {"model": "gpt"},
    }


def test_a_mock_says_the_first_message_and_fills_variables() -> None:
    brief = Brief(system_prompt="p", first_message="f", language="de", variables={"x": 1}, user_id="u")
    for provider in (None, ELEVENLABS):
        parts = check_brief(brief, provider, elevenlabs(), MOCK)
        assert [name for name, use in uses(parts).items() if use == "used"] == ["first message", "variable x"]


# -- the vendors' own words ------------------------------------------------------------------------------


def test_every_override_of_elevenlabs_sdk_is_known() -> None:
    types = pytest.importorskip("elevenlabs.types")

    def members(model: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for name, field in model.model_fields.items():
            inner = [each for each in get_args(field.annotation) if hasattr(each, "model_fields")]
            found |= members(inner[0], (*path, name)) if inner else {(*path, name)}
        return found

    assert members(types.ConversationConfigClientOverrideConfigInput) == brief_check._KNOWN


def test_every_override_of_retells_sdk_is_known() -> None:
    params = pytest.importorskip("retell.types.call_create_web_call_params")
    assert set(params.AgentOverride.__annotations__) == {"agent", *brief_check._RETELL}
    for group, name in (
        ("retell_llm", "AgentOverrideRetellLlm"),
        ("conversation_flow", "AgentOverrideConversationFlow"),
    ):
        assert set(getattr(params, name).__annotations__) == brief_check._RETELL[group]
    agent = set(params.AgentOverrideAgent.__annotations__)
    assert not agent & brief_check._RETELL_AGENT_NEVER
    assert "language" in agent


# -- properties -----------------------------------------------------------------------------------------

PATHS = [
    "agent.first_message", "agent.language", "agent.prompt.prompt", "agent.prompt.llm", "tts.voice_id",
    "tts.stability", "conversation.text_only", "conversation.max_duration_seconds", "asr.keywords",
    "turn.soft_timeout_config.message", "agent.unknown", "nowhere.at_all",
]  # fmt: skip
VALUES = st.one_of(
    st.text(min_size=1, max_size=5),
    st.integers(0, 9),
    st.just(None),
    st.just([]),
    st.just(["a"]),
    st.just(""),
)
VARIABLES = st.dictionaries(
    st.sampled_from(["a", "b", "c_d", "e.f"]), st.one_of(st.text(max_size=5), st.integers(), st.booleans())
)
PHASES = st.lists(
    st.builds(
        Phase,
        name=st.sampled_from(["one", "two"]),
        text=st.text(min_size=1, max_size=9),
        after_turns=st.integers(0, 1),
    ),
    max_size=3,
)
TEXTS = st.sampled_from(["", "plain", "with {{a}}", "with {{ b }} and {{c_d}}"])


@st.composite
def briefs(draw: Any, groups: list[str]) -> Brief:
    overrides: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(groups), unique=True)):
        put(overrides, tuple(path.split(".")), draw(VALUES))
    return Brief(
        system_prompt=draw(TEXTS),
        first_message=draw(TEXTS),
        language=draw(st.sampled_from(["", "de"])),
        phases=tuple(draw(PHASES)),
        variables=draw(VARIABLES),
        overrides=overrides,
        user_id=draw(st.sampled_from(["", "u"])),
    )


def elevenlabs_lands(config: dict[str, Any], part: BriefPart, brief: Brief) -> bool:
    """Whether a part is in what is sent."""
    override = config.get("conversation_config_override", {})
    match part.key:
        case ("system_prompt",):
            return str(at(override, ("agent", "prompt", "prompt")) or "").startswith(brief.system_prompt)
        case ("first_message",):
            return at(override, ("agent", "first_message")) == brief.first_message
        case ("language",):
            return at(override, ("agent", "language")) == brief.language
        case ("user_id",):
            return config.get("user_id") == brief.user_id
        case ("variable", name):
            return name in config.get("dynamic_variables", {})
        case ("override", *path):
            return at(override, tuple(path)) == at(brief.overrides, tuple(path))
        case ("phase", index):
            phase = brief.phases[int(index)]
            return f"# {phase.name}\n{phase.text.strip()}" in str(at(override, ("agent", "prompt", "prompt")))
    raise AssertionError(part)


@given(briefs(PATHS), st.lists(st.sampled_from(PATHS)), st.sampled_from([MICROPHONE, TEXT, PHONE]))
@settings(max_examples=300, deadline=None)
def test_what_is_used_is_sent_and_what_is_ignored_is_not(
    brief: Brief, allowed: list[str], transport: TransportKind
) -> None:
    parts = check_brief(brief, ELEVENLABS, elevenlabs(*allowed, prompt="{{a}} {{e.f}}"), transport)
    kept = usable(brief, parts)
    config = conversation_config(kept, text_only=transport is TEXT)
    shadowed = {
        "agent.prompt.prompt": kept.system_prompt,
        "agent.first_message": kept.first_message,
        "agent.language": kept.language,
        "conversation.text_only": transport is TEXT,
    }
    for part in parts:
        if part.key[0] in ("text_only", "missing") or part.use == "refused":
            continue
        if part.key[0] == "phase" and not brief.phases[int(part.key[1])].at_start:
            assert (brief.phases[int(part.key[1])] in kept.phases) or part.use == "ignored"
            continue
        if part.use == "used" or part.key[0] == "variable":
            assert elevenlabs_lands(config, part, brief), part
        elif part.key[0] == "override":
            path = part.key[1:]
            if not shadowed.get(".".join(path)):
                sent = at(config.get("conversation_config_override", {}), path)
                assert sent is None, part
        elif part.key[0] == "phase":
            assert brief.phases[int(part.key[1])] not in [
                p for i, p in enumerate(kept.phases) if p.at_start
            ] or any(q.use == "used" and q.name == part.name for q in parts)
        else:
            assert not elevenlabs_lands(config, part, brief), part
    sent_leaves = config.get("conversation_config_override", {})
    assert all(value not in (None, "", [], {}) for value in sent_leaves.values())


RETELL_PATHS = [
    "agent.voice_speed", "agent.language", "agent.agent_id", "retell_llm.begin_message", "retell_llm.model",
    "retell_llm.general_prompt", "conversation_flow.model_choice", "tts.speed",
]  # fmt: skip


@given(
    briefs(RETELL_PATHS),
    st.sampled_from(["retell-llm", "conversation-flow", "custom-llm"]),
    st.sampled_from([WEBRTC, TEXT, PHONE]),
)
@settings(max_examples=300, deadline=None)
def test_the_same_for_retell(brief: Brief, engine: str, transport: TransportKind) -> None:
    parts = check_brief(brief, RETELL, retell(engine, general_prompt="{{a}} {{c_d}}"), transport)
    assert not [part for part in parts if part.use == "refused"]
    kept = usable(brief, parts)
    override, variables = retell_override(kept)
    assert all(isinstance(value, str) for value in variables.values())
    for part in parts:
        sent: object
        match part.key:
            case ("variable", name):
                assert name in variables
                continue
            case ("first_message",):
                sent = at(override, ("retell_llm", "begin_message"))
                sent = sent if sent == brief.first_message else None
            case ("language",):
                sent = at(override, ("agent", "language"))
                sent = sent if sent == brief.language else None
            case ("override", *path):
                sent = at(override, tuple(path))
                if tuple(path) == ("retell_llm", "begin_message") and kept.first_message:
                    continue
                if tuple(path) == ("agent", "language") and kept.language:
                    continue
            case _:
                continue
        if part.use == "ignored" and part.key[0] in ("first_message", "language"):
            field = getattr(kept, part.key[0])
            assert field == ""
        else:
            assert (sent is not None) is (part.use == "used"), part
