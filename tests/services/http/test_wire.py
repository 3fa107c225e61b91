from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.errors import ServiceError
from services.http import Wire, digest, parse, parse_page
from services.http.wire import MAX_DEPTH, canonical_number

# A number is (digits, exponent), so that every spelling of it can be written down exactly.
numbers = st.tuples(st.integers(-(10**30), 10**30), st.integers(-400, 400))
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=12))
documents = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


def spell(value: tuple[int, int], rng: random.Random) -> str:
    digits, exponent = value
    if digits == 0:
        return rng.choice(["0", "-0", "0.0", "0e5", "-0.00E-3"])
    zeros = rng.randrange(4)
    text, sign = str(abs(digits)) + "0" * zeros, "-" if digits < 0 else ""
    exponent -= zeros
    point = rng.randrange(1, len(text) + 1)
    whole, fraction = text[:point], text[point:]
    exponent += len(fraction)
    mantissa = sign + whole + (f".{fraction}" if fraction else "")
    if exponent == 0 and rng.random() < 0.5:
        return mantissa
    return f"{mantissa}{rng.choice('eE')}{'+' if exponent >= 0 and rng.random() < 0.5 else ''}{exponent}"


def render(value: Any, rng: random.Random) -> str:
    """The value as JSON text: keys in any order, any white space, numbers and characters spelled anyhow."""
    gap = lambda: rng.choice(["", " ", "\n", "\t \r\n"])  # noqa: E731
    if isinstance(value, tuple):
        return spell(value, rng)
    if isinstance(value, dict):
        members = [
            f"{gap()}{render(key, rng)}{gap()}:{gap()}{render(item, rng)}{gap()}"
            for key, item in value.items()
        ]
        rng.shuffle(members)
        return "{" + ",".join(members) + gap() + "}"
    if isinstance(value, list):
        return "[" + ",".join(f"{gap()}{render(item, rng)}{gap()}" for item in value) + gap() + "]"
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in places(item, (*path, key))]
    if isinstance(value, list):
        return [place for index, item in enumerate(value) for place in places(item, (*path, index))]
    return [path]


def replaced(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    if isinstance(value, dict):
        return {
            key: replaced(item, path[1:], leaf) if key == path[0] else item for key, item in value.items()
        }
    return [replaced(item, path[1:], leaf) if index == path[0] else item for index, item in enumerate(value)]


def leaf_at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def same_leaf(one: Any, two: Any) -> bool:
    if isinstance(one, tuple) and isinstance(two, tuple):
        low = min(one[1], two[1])
        return bool(one[0] * 10 ** (one[1] - low) == two[0] * 10 ** (two[1] - low))
    return type(one) is type(two) and one == two


@given(documents, st.integers(), st.integers())
def test_spelling_never_changes_the_digest(value: Any, one: int, two: int) -> None:
    assert digest(render(value, random.Random(one))) == digest(render(value, random.Random(two)))


@given(documents, leaves, st.data())
def test_one_changed_leaf_changes_the_digest(value: Any, leaf: Any, data: st.DataObject) -> None:
    spots = places(value)
    assume(spots)
    path = data.draw(st.sampled_from(spots))
    assume(not same_leaf(leaf_at(value, path), leaf))
    rng = random.Random(1)
    assert digest(render(value, rng)) != digest(render(replaced(value, path, leaf), rng))


@given(documents, leaves, leaves, st.integers())
def test_an_ignored_member_never_counts(value: Any, one: Any, two: Any, seed: int) -> None:
    rng = random.Random(seed)
    ignore = [("metadata", "seen")]
    with_one = render({"v": value, "metadata": {"seen": one}}, rng)
    with_two = render({"v": value, "metadata": {"seen": two}}, rng)
    without = render({"v": value, "metadata": {}}, rng)
    assert digest(with_one, ignore) == digest(with_two, ignore) == digest(without, ignore)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("1", '"1"'),
        ("1", "true"),
        ("0", "false"),
        ("0", "null"),
        ("0", '""'),
        ("[]", "{}"),
        ("[[1],2]", "[[1,2]]"),
        ('["ab"]', '["a","b"]'),
        ('{"a":{"b":1}}', '{"a":{},"b":1}'),
        ('"1e0"', "1"),
        ("1e400", "1e401"),
        ("0.1", "0.10000000000000000000000000000000000001"),
        ("9007199254740993", "9007199254740992"),
        ('"é"', '"e\\u0301"'),
        ('"\\ud800"', '"\\ud801"'),
    ],
)
def test_different_values_differ(one: str, two: str) -> None:
    assert digest(one) != digest(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("1", "1.0"),
        ("1", "10e-1"),
        ("-0", "0.0e7"),
        ("1E+2", "100"),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('"\\u00e9"', '"é"'),
        ('"\\ud83d\\ude00"', '"😀"'),
        (" [ ]\n", "[]"),
    ],
)
def test_equal_values_agree(one: str, two: str) -> None:
    assert digest(one) == digest(two)


def test_numbers_too_long_for_python_are_compared_exactly() -> None:
    digits = "7" * 100_000
    assert digest(digits) == digest(digits + ".000")
    assert digest(digits) != digest(digits[:-1] + "8")
    huge = "9" * 50_000
    assert digest(f"1e{huge}") == digest(f"10e{huge[:-1]}8")
    assert digest(f"0.1e-{huge}") == digest(f"1e-1{'0' * 50_000}")
    assert digest(f"1e{huge}") != digest(f"1e{huge[:-1]}8")
    assert parse(digits).text == digits


@pytest.mark.parametrize("literal", ["1e000000000000000000005", "1E+05", "100000", "0.000001e11"])
def test_canonical_number(literal: str) -> None:
    assert canonical_number(literal) == "1e5"


def test_ignored_paths_with_wildcards() -> None:
    ignore = [("items", "*", "at"), ("*", "secret")]
    one = '{"items":[{"at":1,"v":1},{"at":2,"v":2}],"x":{"secret":1}}'
    two = '{"items":[{"v":1},{"at":9,"v":2}],"x":{"secret":[3]}}'
    assert digest(one, ignore) == digest(two, ignore)
    assert digest(one, ignore) != digest(two.replace('"v":2', '"v":3'), ignore)
    assert digest(one) != digest(two)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", '{"a":-Infinity}'])
def test_nan_and_infinity_are_not_json(text: str) -> None:
    for read in (parse, digest):
        with pytest.raises(ServiceError) as caught:
            read(text)
        assert caught.value.code == "not_json"


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting_is_refused_in_words(depth: int, opening: str) -> None:
    text = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
    for read in (parse, digest, lambda t: parse_page('{"items":[{"x":' + t + "}]}", "items")):
        with pytest.raises(ServiceError) as caught:
            read(text)
        assert caught.value.code == "too_deep"


def test_nesting_up_to_the_limit_is_read() -> None:
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(text).text == text
    assert digest(text) == digest(" " + text)


@given(st.lists(st.dictionaries(st.text(max_size=5), leaves, max_size=3), max_size=5), st.integers())
@example([{"items": "]}"}, {"a": None}], 3)
def test_items_are_cut_out_byte_true(items: list[dict[str, Any]], seed: int) -> None:
    rng = random.Random(seed)
    texts = [render(item, rng) for item in items]
    page = parse_page('{ "has_more" : true,\n"items": [' + " ,\n".join(texts) + ' ] , "next":"c" }', "items")
    assert [wire.text for wire in page.items] == texts
    assert [wire.data for wire in page.items] == [json.loads(text) for text in texts]
    assert page.envelope == {"has_more": True, "next": "c"}


@pytest.mark.parametrize(
    "text",
    [
        '{"items":[1,]}',
        '{"items":[{}] "x":1}',
        '{"items":[]}x',
        "{,}",
        '{"items":[{}],}',
        "{items:[]}",
        "{1:2}",
    ],
)
def test_a_page_that_is_not_json(text: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_page(text, "items")
    assert caught.value.code in ("not_json", "wrong_shape")
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "got a list"),
        ("{}", "got an empty object"),
        ('{"agents":[]}', "got an object with agents"),
        ('{"items":{}}', "got an object with items"),
        ('{"items":[3]}', "got a number"),
        ("null", "got null"),
    ],
)
def test_a_page_of_another_shape_says_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ServiceError) as caught:
        parse_page(text, "items")
    assert caught.value.code == "wrong_shape"
    assert "'items'" in caught.value.message
    assert said in caught.value.message


def test_of_a_repeated_list_the_last_counts() -> None:
    assert [w.text for w in parse_page('{"items":[{"a":1}],"items":[{"b":2}]}', "items").items] == ['{"b":2}']


@given(documents, st.data())
def test_a_cut_off_document_is_told_from_a_wrong_one(value: Any, data: st.DataObject) -> None:
    text = render({"v": value}, random.Random(0)).strip()
    cut = text[: data.draw(st.integers(1, len(text) - 1))]
    with pytest.raises(ServiceError) as caught:
        parse(cut)
    assert caught.value.code == "truncated"


def test_ten_megabytes_of_prompt() -> None:
    text = json.dumps({"prompt": 'Grüße, "Welt"\n😀 ' * 700_000}, ensure_ascii=False)
    assert len(text.encode()) > 10_000_000
    assert parse(text).text == text
    assert digest(text) == digest(json.dumps(json.loads(text)))


def test_the_content_of_a_document_does_not_show_in_its_repr() -> None:
    assert "hunter2" not in repr(Wire('{"header":"hunter2"}', {"header": "hunter2"}))
