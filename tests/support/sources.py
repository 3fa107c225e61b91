"""Reading the project's own source."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module.

    The collector waits meanwhile. What it finalizes may format a traceback, which parses source too, and
    before Python 3.11.8 one parse within another ends in "AST constructor recursion depth mismatch".
    """
    paused = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        if paused:
            gc.enable()
