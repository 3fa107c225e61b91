"""Giving memory back after work that needed much of it."""

from __future__ import annotations

import sys


def give_back() -> None:
    """Return freed heap pages to the system where the C library can (glibc); elsewhere nothing happens.

    A sync of a thousand agents frees what it used, but in pieces that glibc keeps for itself. Takes some
    milliseconds without the interpreter lock; call it in a thread.
    """
    if sys.platform != "linux":
        return
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return  # another C library, such as musl
