"""Columns that many tables have."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Text


def time_column(*, nullable: bool = True, index: bool = False) -> Column[int]:
    """Epoch milliseconds, UTC."""
    return Column(BigInteger, nullable=nullable, index=index)


def text_column() -> Column[str]:
    """A text of any length, empty rather than absent."""
    return Column(Text, nullable=False)


def company_column(*, index: bool = True) -> Column[int]:
    """The tenant a row belongs to and goes with; None for the whole installation."""
    return Column(ForeignKey("company.id", ondelete="CASCADE"), nullable=True, index=index)
