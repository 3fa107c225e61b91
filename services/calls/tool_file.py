"""Client tools from a Python file: its public functions, under their names. Blocking.

The operator's own code, run with the operator's rights, and only when the settings or the command line
name the file.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

from services.calls.tools import Tool
from services.errors import UsageError
from services.text import clean_line


def load_tools(path: Path) -> list[tuple[str, Tool, str]]:
    """Name, callable and description (first line of its docstring) of each. Raises UsageError.

    A tool is called with one dict: the arguments the agent gave.
    """
    spec = importlib.util.spec_from_file_location("callboard_client_tools", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(
            f"There is no Python file {path}", advice="Name a file that ends in .py", code="bad_tools"
        )
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"{path.name} could not be loaded: {type(error).__name__}: {clean_line(str(error))}",
            advice="Run it with python to see where it fails",
            code="bad_tools",
        ) from error
    found: list[tuple[str, Tool, str]] = [
        (name, value, (inspect.getdoc(value) or "").partition("\n")[0])
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    if not found:
        raise UsageError(
            f"{path.name} defines no function", advice="A tool is a public function", code="bad_tools"
        )
    return found
