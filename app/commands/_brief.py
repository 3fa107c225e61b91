"""The brief that a command line names: a file, the subject's data, variables."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from services.errors import UsageError

if TYPE_CHECKING:
    from services.calls.model import Brief


async def brief_of(args: Namespace) -> Brief:
    """`--brief`, `--data`, `--row` and `--var` of the command line. Raises UsageError for what is wrong."""
    from services.calls.brief import load_brief
    from services.calls.model import Brief

    variables = dict(_variable(text) for text in args.var)
    if args.brief is None:
        if args.data is not None or args.row is not None:
            raise UsageError(
                "--data and --row fill a brief, and there is none", advice="Add --brief FILE", code="no_brief"
            )
        return replace(Brief(), variables=variables)
    return await load_brief(args.brief, row=args.row, data=args.data, variables=variables)


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise UsageError(f"--var takes NAME=VALUE, not {text!r}", advice="Such as --var first_name=Ada")
    return name.strip(), value
