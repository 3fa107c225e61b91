"""Entry points and wiring: the console, the command line, settings."""

__product__ = "callboard"
__version__ = "0.1.0"
