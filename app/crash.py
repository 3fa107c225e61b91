"""A failure nobody expected: a redacted report in a file, one clear message on the terminal."""

from __future__ import annotations

import time
import traceback

from services.errors import ServiceError


def report_crash(error: BaseException) -> ServiceError:
    """Write the report (no local variables, secrets masked) and say where it is.

    Never fails: without a place to write to, the message says so.
    """
    from app import __version__

    text = "".join(traceback.format_exception(error, limit=-30))
    try:
        import os

        from app.paths import paths_from
        from services.security import redact

        folder = paths_from(os.environ).log_dir
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"crash-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.txt"
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(handle, "w", encoding="utf-8", errors="replace") as out:
            out.write(f"callboard {__version__}\n\n{redact(text)}")
    except Exception:
        return ServiceError(
            "Something happened that Callboard was not prepared for, and no report of it could be written",
            advice="Run `callboard doctor`, and try again",
            code="crash",
        )
    return ServiceError(
        "Something happened that Callboard was not prepared for",
        advice=f"The report is in {file} (secrets are masked); send it to the maintainers",
        code="crash",
    )
