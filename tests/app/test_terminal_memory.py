"""Widgets that are gone are let go of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CODE = """
import gc, weakref
from textual._styles_cache import StylesCache
from textual.color import Color
from app.terminal import let_go_of_dead_widgets

def kept():
    cache = StylesCache()
    colours = cache.get_inner_outer(Color(0, 0, 0), Color(9, 9, 9))
    seen = weakref.ref(cache)
    del cache
    gc.collect()
    return seen() is not None, colours

before, colours = kept()
let_go_of_dead_widgets()
let_go_of_dead_widgets()
after, same = kept()
print(before, after, colours == same)
"""


def test_a_painted_widget_is_not_kept_alive() -> None:
    """In a process of its own: it changes Textual for good. `True` at first says that it is still needed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["True", "False", "True"], done.stderr
