"""Templates rendered within bounds. Also a program: JSON on standard input, JSON on standard output.

A sandbox keeps a template from Python's objects, and nothing in it bounds time and memory: loops in loops,
text that doubles. So the program renders in a process that can be ended. It imports nothing of ours and is
run by its path, wherever the package is installed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_OUTPUT = 400_000
"""Characters one text may have."""
MOST_MEMORY = 512 << 20
"""Bytes of address space the process may take, where the system can limit it."""


def render(
    templates: Mapping[str, str], fields: Mapping[str, Any], folder: str = ""
) -> dict[str, dict[str, Any]]:
    """Every text rendered with the fields: `{"text": …}`, or what is wrong with it.

    A failure is `{"error": kind, "message": …, "line": n, "file": …}`; `kind` is `syntax`, `missing` (then
    `field` names what is missing), `size` or `failed`. `folder` is where `{% include %}` looks.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(folder) if folder else None,
        keep_trailing_newline=False,
        autoescape=False,  # the text goes to a language model, not into a page
    )
    return {name: _render(environment, source, fields) for name, source in templates.items()}


def _render(environment: Any, source: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    import jinja2

    try:
        template = environment.from_string(source)
        pieces: list[str] = []
        size = 0
        for piece in template.root_render_func(template.new_context(dict(fields))):
            size += len(piece)
            if size > MOST_OUTPUT:
                return {"error": "size", "message": f"it grows beyond {MOST_OUTPUT} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except jinja2.TemplateSyntaxError as error:
        return {"error": "syntax", "message": error.message, "line": error.lineno, "file": error.name}
    except jinja2.UndefinedError as error:
        return {
            "error": "missing",
            "message": error.message or "a field is missing",
            "field": _field(error.message or ""),
            **_where(error),
        }
    except jinja2.TemplateNotFound as error:
        return {"error": "failed", "message": f"there is no template {error.name}", **_where(error)}
    except MemoryError:
        return {"error": "size", "message": "it takes too much memory"}
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return {"error": "failed", "message": message[:300], **_where(error)}


def _field(message: str) -> str:
    """The name out of `'name' is undefined` and `'dict object' has no attribute 'name'`."""
    parts = message.split("'")
    return parts[-2] if len(parts) >= 3 else ""


def _where(error: BaseException) -> dict[str, Any]:
    """The deepest template line of a failure."""
    found: dict[str, Any] = {}
    trace = error.__traceback__
    while trace is not None:
        template = trace.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            found = {"line": template.get_corresponding_lineno(trace.tb_lineno), "file": template.name}
        trace = trace.tb_next
    return found


def _limit() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # this system has no such limit; the time limit holds


def main() -> int:
    request = json.loads(sys.stdin.buffer.read())
    _limit()
    answer = render(request["templates"], request["fields"], request["folder"])
    sys.stdout.buffer.write(json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    # Run by path: the folder of this file must not shadow what it imports.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    sys.exit(main())
