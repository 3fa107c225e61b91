from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.masking import MASK, mask_secrets

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text('abc {}[]:,"\\\n\u202eé', max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text('xyz":', max_size=4), inner)
    ),
)


@given(PLAIN, st.sampled_from([None, 1, 2]))
def test_what_is_no_secret_stays_character_for_character(value, indent):
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert mask_secrets(text) == (text, 0)


@given(PLAIN, st.text(min_size=1))
def test_a_named_secret_is_gone_wherever_it_stands(around, secret):
    text = json.dumps({"a": [around, {"Authorization": secret, "b": around}], "c": 1.50})
    masked, count = mask_secrets(text)
    assert count == 1
    assert json.loads(masked) == {"a": [around, {"Authorization": MASK, "b": around}], "c": 1.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"api_key" : "x", "n": 1.0}', f'{{"api_key" : "{MASK}", "n": 1.0}}'),
        ('{"X-Api-Key":"x"}', f'{{"X-Api-Key":"{MASK}"}}'),
        ('{"secret_id":"ref"}', '{"secret_id":"ref"}'),
        ('{"max_tokens":"5","token":"5"}', f'{{"max_tokens":"5","token":"{MASK}"}}'),
        ('["Bearer abc", "say: token"]', f'["{MASK}", "say: token"]'),
        ('{"token":{"note":"x"}}', '{"token":{"note":"x"}}'),
        ('{"password":""}', '{"password":""}'),
        ('{"v":"sk_live_1"}', f'{{"v":"{MASK}"}}'),
    ],
)
def test_examples(text, expected):
    assert mask_secrets(text)[0] == expected
