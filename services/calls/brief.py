"""The brief of a call: read, filled with a subject's data, compared with what the agent permits, sent.

`load_brief` makes it, `check_brief` says what becomes of each part, `usable` leaves out what would be
ignored, `conversation_config` and `retell_override` are what transports send.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from services.calls.brief_check import BriefPart, Use, check_brief, placeholders, usable
from services.calls.brief_payload import conversation_config, prompt_text, retell_override
from services.calls.model import Brief, Value

__all__ = [
    "BriefPart",
    "Use",
    "check_brief",
    "conversation_config",
    "load_brief",
    "placeholders",
    "prompt_text",
    "retell_override",
    "usable",
]


async def load_brief(
    path: Path,
    *,
    row: str | int | None = None,
    data: Path | None = None,
    variables: Mapping[str, Value] | None = None,
    templates: Path | None = None,
) -> Brief:
    """See `brief_file.load_brief`; YAML and the templates' libraries are loaded now, in a thread."""
    import asyncio
    import importlib

    module = await asyncio.to_thread(importlib.import_module, "services.calls.brief_file")
    brief: Brief = await module.load_brief(path, row=row, data=data, variables=variables, templates=templates)
    return brief
