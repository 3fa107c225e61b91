"""Reading secrets from people: keys, passphrases, confirmations. Never from an argument."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from app.commands._run import interruptible
from app.output import is_terminal, say
from app.settings import PASSPHRASE_VARIABLE
from services.errors import ServiceError, UsageError, VaultLocked

if TYPE_CHECKING:
    from services.container import Services
    from services.security import SecretStore

LONGEST_KEY = 4096
TRIES = 3


def can_ask() -> bool:
    """Whether somebody sits at the other end: both a keyboard and a place to show the question."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def ask_hidden(question: str) -> str:
    """Ask on the terminal without echo."""
    import getpass

    with interruptible():
        try:
            return getpass.getpass(question, stream=sys.stderr)
        except EOFError:
            raise UsageError("Nothing was entered", advice="Run the command again", code="no_input") from None


def ask(question: str) -> str:
    """Ask on the terminal, visibly; on standard error. An ended input is an empty answer."""
    with interruptible():
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().rstrip("\r\n")


def read_key(
    vendor: str, *, from_stdin: bool, variable: str | None, environ: Mapping[str, str] | None = None
) -> str:
    """A vendor's API key from standard input, a variable of the environment, or a prompt.

    Raises `UsageError` when there is nobody to ask and when what was given cannot be a key.
    """
    environ = os.environ if environ is None else environ
    if variable is not None:
        if variable not in environ:
            raise UsageError(
                f"There is no variable {variable} in the environment",
                advice=f"Export {variable}, or leave --key-env out to be asked",
                code="no_key",
            )
        return checked_key(environ[variable], f"The variable {variable}")
    if from_stdin:
        return checked_key(sys.stdin.read(LONGEST_KEY + 2), "Standard input")
    if not can_ask():
        raise UsageError(
            "There is no terminal to ask for the key on",
            advice="Give the key on standard input with --key-stdin, or name its variable with --key-env",
            code="no_key",
        )
    return checked_key(ask_hidden(f"{vendor} API key (not shown): "), "What was entered")


def checked_key(text: str, source: str) -> str:
    """The key without the line end that `echo` adds; refuses what no vendor's key can be.

    The message names what is wrong and never a part of the key.
    """
    key = text.removesuffix("\n").removesuffix("\r")
    wrong = ""
    if not key.strip():
        wrong = "is empty"
    elif "\n" in key or "\r" in key:
        wrong = "holds more than one line"
    elif key != key.strip() or any(character.isspace() for character in key):
        wrong = "holds white space"
    elif not key.isascii() or not key.isprintable():
        wrong = (
            "holds characters that no API key has (letters with accents, quotes from a document, controls)"
        )
    elif len(key) > LONGEST_KEY:
        wrong = f"is longer than {LONGEST_KEY} characters"
    if wrong:
        raise UsageError(
            f"{source} is not a key: it {wrong}",
            advice="Copy the key from the vendor's dashboard again, alone and whole",
            code="bad_key",
        )
    return key


async def unlocked(services: Services) -> SecretStore:
    """The secret store, ready to be read and written.

    An encrypted file asks for its passphrase on a terminal, twice the first time; without a terminal
    it needs the environment's (which the store was already given). Raises `VaultLocked`, or
    `ServiceError` (authentication) for a wrong passphrase.
    """
    store = await services.open_secrets()
    if not store.locked:
        return store
    if not can_ask():
        raise VaultLocked(
            f"The secret store ({store.label}) needs its passphrase",
            advice=f"Set {PASSPHRASE_VARIABLE}, or run the command in a terminal to be asked",
            code="vault_locked",
        )
    if getattr(store, "is_new", False):
        await store.unlock(_new_passphrase(store.label))
        return store
    for attempt in range(1, TRIES + 1):
        try:
            await store.unlock(ask_hidden(f"Passphrase of the {store.label}: "))
            break
        except ServiceError as error:
            if error.code != "wrong_passphrase" or attempt == TRIES:
                raise
            say("That is not its passphrase.")
    return store


def _new_passphrase(label: str) -> str:
    say(f"No working keyring was found, so keys are kept in an {label}. Choose its passphrase;")
    say(f"it is asked for in every new terminal unless {PASSPHRASE_VARIABLE} is set. It cannot be recovered.")
    first = ask_hidden("New passphrase: ")
    if not first:
        raise UsageError("An empty passphrase protects nothing", advice="Choose one", code="bad_passphrase")
    if ask_hidden("The same again: ") != first:
        raise UsageError(
            "The two passphrases differ, nothing was stored",
            advice="Run the command again",
            code="bad_passphrase",
        )
    return first


def confirm_removal(what: str, name: str, *, yes: bool) -> bool:
    """Whether to go on removing: `--yes`, or the name typed on a terminal.

    Raises `UsageError` when there is neither.
    """
    if yes:
        return True
    if not can_ask():
        raise UsageError(
            f"This removes {what}, and there is no terminal to ask on",
            advice="Add --yes if that is what you want",
            code="not_confirmed",
        )
    say(f"This removes {what}. It cannot be undone.")
    if ask(f"Type {name} to go on: ") == name:
        return True
    say("That is another name. Nothing was removed.")
    return False
