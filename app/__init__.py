"""Entry points and wiring: the console, the command line, settings."""

__product__ = "callboard"
