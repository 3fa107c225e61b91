"""What the program does, with no screen: importable, async, typed."""

__product__ = "callboard"
