"""Dialogs: a passphrase, a name, a key, a yes. Each says what enter does and shows what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Static

from screens.glyphs import Glyphs, Tone
from screens.ports import Companies, ConnectionCheck, Secrets
from screens.textfit import display, sentence
from services.errors import ServiceError
from services.model import ConnectionInfo, Provider
from services.text import clean

Result = TypeVar("Result")


class Dialog(ModalScreen[Result]):
    """A framed box in the middle: a title, fields, one line that says how it goes, one line of keys."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "cancel", show=False)]
    title_text = ""
    keys_text = "enter ok   esc cancel"

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self.title_text), classes="title")
            yield from self.fields()
            yield Static("", classes="status")
            yield Static(Content(self.keys_text), classes="keys")

    def fields(self) -> Iterable[Widget]:
        """What stands between title and status."""
        raise NotImplementedError

    def say(self, text: str, tone: Tone = Tone.MUTED) -> None:
        """How it goes."""
        status = self.query_one(".status", Static)
        status.set_classes(f"status -{tone.value}")
        status.update(Content(clean(text)))

    def action_leave(self) -> None:
        self.dismiss(None)

    def attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run it once at a time; a service's error stays in the dialog, to be corrected."""

        async def run() -> None:
            self.busy = True
            try:
                await work()
            except ServiceError as error:
                self.say(sentence(error.message, error.advice), Tone.ACT)
            finally:
                self.busy = False

        if not self.busy:
            self.run_worker(run(), group="dialog", exit_on_error=False, exclusive=True)


def labelled(label: str, hint: str = "") -> Static:
    """A field's label, with a remark behind it."""
    text = Content.assemble((label, "bold"), (f"  {hint}" if hint else "", "dim"))
    return Static(text, classes="label")


class UnlockDialog(Dialog[bool]):
    """Opens the encrypted file of keys, or chooses the passphrase of a new one. True once it is open."""

    title_text = "Unlock the keys"

    def __init__(self, secrets: Secrets) -> None:
        super().__init__()
        self._secrets = secrets
        self._new = bool(getattr(secrets, "is_new", False))
        """There is no file yet: a slip of the finger would lock its owner out, so it is typed twice."""
        if self._new:
            self.title_text = "Choose a passphrase"

    def fields(self) -> Iterable[Widget]:
        hint = "encrypts the keys on this machine; it cannot be recovered" if self._new else ""
        yield labelled("Passphrase", hint or f"of the {self._secrets.label}")
        yield Input(password=True, id="passphrase")
        if self._new:
            yield labelled("Again")
            yield Input(password=True, id="again")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        first = self.query_one("#passphrase", Input)
        if self._new and event.input is first:
            self.query_one("#again", Input).focus()
            return
        if self._new and self.query_one("#again", Input).value != first.value:
            self.say("The two are not the same", Tone.LOOK)
            return

        async def unlock() -> None:
            self.say("opening")
            try:
                await self._secrets.unlock(first.value)
            except ServiceError:
                first.value = ""
                raise
            self.dismiss(True)

        self.attempt(unlock)


class NameDialog(Dialog[bool]):
    """Asks for a name and gives it to `accept`, whose errors it shows."""

    def __init__(self, title: str, label: str, accept: Callable[[str], Awaitable[object]]) -> None:
        self.title_text = title
        super().__init__()
        self._label, self._accept = label, accept

    def fields(self) -> Iterable[Widget]:
        yield labelled(self._label)
        yield Input(id="name", max_length=60)

    @on(Input.Submitted, "#name")
    def _submitted(self, event: Input.Submitted) -> None:
        async def accept() -> None:
            await self._accept(event.value)
            self.dismiss(True)

        self.attempt(accept)


class ConfirmDialog(Dialog[bool]):
    """Asks before something is removed; with `typed`, only for who types that name."""

    def __init__(self, title: str, consequence: str, *, typed: str = "") -> None:
        self.title_text = title
        self.keys_text = "enter removes   esc keeps" if typed else "y removes   esc keeps"
        super().__init__()
        self._consequence, self._typed = consequence, typed

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "agree", "yes", show=False),
        Binding("n", "leave", "no", show=False),
    ]

    def fields(self) -> Iterable[Widget]:
        yield Static(Content(self._consequence), classes="text")
        if self._typed:
            yield labelled("To confirm", f"type {display(self._typed)}")
            yield Input(id="typed")

    def action_agree(self) -> None:
        if not self._typed:
            self.dismiss(True)

    @on(Input.Submitted, "#typed")
    def _submitted(self, event: Input.Submitted) -> None:
        if event.value.strip() == self._typed:
            self.dismiss(True)
        else:
            self.say("That is not its name", Tone.LOOK)


class TextDialog(Dialog[None]):
    """Shows a text as it is, to be selected with the mouse where the clipboard is out of reach."""

    keys_text = "shift + mouse selects   esc closes"

    def __init__(self, title: str, text: str) -> None:
        self.title_text = title
        super().__init__()
        self._text = text

    def fields(self) -> Iterable[Widget]:
        from textual.containers import VerticalScroll

        # More than a screen or two cannot be selected by hand anyway.
        yield VerticalScroll(Static(Content(self._text[:20_000]), classes="text"), classes="long")


class Choice(Widget, can_focus=True):
    """One of a few words, changed with the left and right arrow."""

    DEFAULT_CSS = "Choice { height: 1; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "before", show=False),
        Binding("right,space", "turn(1)", "next", show=False),
        Binding("enter,down", "app.focus_next", "on", show=False),
        Binding("up", "app.focus_previous", "back", show=False),
    ]

    class Changed(Message):
        """Another word is chosen."""

    def __init__(self, words: list[str], *, ident: str) -> None:
        super().__init__(id=ident)
        self.words = words
        self.index = 0

    @property
    def value(self) -> str:
        return self.words[self.index]

    def set_words(self, words: list[str]) -> None:
        self.words, self.index = words, 0
        self.refresh()

    def render(self) -> Content:
        return Content("   ").join(
            Content.styled(f" {word} ", "reverse bold" if number == self.index else "")
            for number, word in enumerate(self.words)
        )

    def action_turn(self, by: int) -> None:
        self.index = (self.index + by) % len(self.words)
        self.refresh()
        self.post_message(self.Changed())

    def on_click(self, event: events.Click) -> None:
        left = 0
        for number, word in enumerate(self.words):
            if left <= event.x < left + len(word) + 2:
                self.action_turn(number - self.index)
            left += len(word) + 5


class KeyDialog(Dialog[bool]):
    """Connects a company to a vendor, or renews a key: the key is tried before it is stored."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s", "store_anyway", "store anyway", show=False)]
    keys_text = "enter tests and stores   tab next field   esc cancel"

    def __init__(
        self, companies: Companies, company: str, glyphs: Glyphs, *, connection: ConnectionInfo | None = None
    ) -> None:
        rotating = connection is not None
        vendor = connection.provider.value if connection is not None else "a vendor"
        self.title_text = (
            f"New key for {display(company)} at {vendor}" if rotating else f"Connect {display(company)}"
        )
        super().__init__()
        self._companies, self._company, self._glyphs = companies, company, glyphs
        self._connection = connection
        self._may_store = False

    def fields(self) -> Iterable[Widget]:
        if self._connection is None:
            yield labelled("Vendor", "left and right change it")
            yield Choice([provider.value for provider in Provider], ident="vendor")
            yield labelled("Data region")
            yield Choice(self._regions(Provider.RETELL), ident="region")
            yield labelled("Base URL", "leave empty unless you use a proxy or a simulator")
            yield Input(id="url", placeholder=self._host())
        yield labelled("Key", "stays in the secret store of this machine, is never shown")
        yield Input(password=True, id="key")

    def on_mount(self) -> None:
        self.query_one("#vendor" if self._connection is None else "#key").focus()

    def _regions(self, provider: Provider) -> list[str]:
        from services.providers import residency_hosts

        return list(residency_hosts(provider))

    def _provider(self) -> Provider:
        if self._connection is not None:
            return self._connection.provider
        return Provider(self.query_one("#vendor", Choice).value)

    def _host(self) -> str:
        from services.providers import residency_hosts

        if not self.is_mounted:
            return residency_hosts(Provider.RETELL)["global"]
        return residency_hosts(self._provider())[self.query_one("#region", Choice).value]

    @on(Choice.Changed)
    def _changed(self, event: Choice.Changed) -> None:
        vendor, region = self.query_one("#vendor", Choice), self.query_one("#region", Choice)
        words = self._regions(self._provider())
        if words != region.words:
            region.set_words(words)
        self.query_one("#url", Input).placeholder = self._host()
        self._may_store = False
        self.say(f"{vendor.value}, {region.value}")

    @on(Input.Changed)
    def _edited(self) -> None:
        self._may_store = False

    @on(Input.Submitted, "#url")
    def _url_done(self) -> None:
        self.query_one("#key", Input).focus()

    @on(Input.Submitted, "#key")
    def _key_done(self, event: Input.Submitted) -> None:
        self.attempt(self._test_and_store)

    def _wishes(self) -> dict[str, str | None]:
        if self._connection is not None:
            return {"base_url": self._connection.base_url, "residency": self._connection.residency}
        url = self.query_one("#url", Input).value.strip()
        return {"base_url": url or None, "residency": self.query_one("#region", Choice).value}

    async def _test_and_store(self) -> None:
        key = self.query_one("#key", Input).value.strip()
        if not key:
            self.say("Paste the key first", Tone.LOOK)
            return
        self.say(f"asking {self._provider().value}", Tone.MOVING)
        check = await self._companies.test_key(self._provider(), key=key, **self._wishes())
        if check.ok:
            await self._store(key)
            return
        self._may_store = check.code != "wrong_key"
        text = verdict(check)
        self.say(f"{text}. Ctrl+s stores it all the same" if self._may_store else text, Tone.ACT)

    def action_store_anyway(self) -> None:
        key = self.query_one("#key", Input).value.strip()

        async def store() -> None:
            await self._store(key)

        if self._may_store and key:
            self.attempt(store)

    async def _store(self, key: str) -> None:
        if self._connection is not None:
            await self._companies.rotate(self._company, self._provider(), key=key)
        else:
            await self._companies.add_connection(self._company, self._provider(), key=key, **self._wishes())
        self.query_one("#key", Input).value = ""
        self.dismiss(True)


def verdict(check: ConnectionCheck) -> str:
    """The result of a test in words: a wrong key reads differently from a missing permission."""
    if check.ok:
        who = f" as {display(check.account)}" if check.account else ""
        return f"The key works{who} ({check.took_ms} ms)"
    heading = {
        "wrong_key": "Wrong key",
        "missing_permission": "The key is right but lacks a permission",
        "unreachable": "The vendor cannot be reached",
    }.get(check.code, "The test failed")
    return f"{heading}: {sentence(check.error.message, check.error.advice)}" if check.error else heading
