from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import InitError, KeyringLocked

from services.errors import Category, ServiceError, VaultLocked
from services.security import FileStore, KeyringStore, open_store, opening, store_at_a_glance, vault
from services.security.keyring_store import choose_backend
from tests.support.servers import need

NO_KEYRING: KeyringBackend = fail.Keyring()  # type: ignore[no-untyped-call]
NULL_KEYRING: KeyringBackend = null.Keyring()  # type: ignore[no-untyped-call]


class FakeKeyring(KeyringBackend):
    priority = 1

    def __init__(self, failure: Exception | None = None, before: Callable[[], object] | None = None) -> None:
        self.held: dict[tuple[str, str], str] = {}
        self.failure = failure
        self.before = before

    def _enter(self) -> None:
        if self.before is not None:
            self.before()
        if self.failure is not None:
            raise self.failure

    def get_password(self, service: str, username: str) -> str | None:
        self._enter()
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._enter()
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._enter()
        del self.held[service, username]


async def failure_of(store: KeyringStore) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await store.set("connection/1", "a stored value")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return caught.value


async def test_round_trip_under_its_own_service_name() -> None:
    backend = FakeKeyring()
    one = KeyringStore(choose=lambda: backend)
    two = KeyringStore("callboard-2", choose=lambda: backend)
    await one.set("connection/1", "of one")
    await two.set("connection/1", "of two")
    assert (await one.get("connection/1"), await two.get("connection/1")) == ("of one", "of two")
    await one.delete("connection/1")
    await one.delete("connection/1")
    assert await one.get("connection/1") is None
    await two.probe()
    assert list(backend.held) == [("callboard-2", "connection/1")], "the probe leaves nothing"
    assert not two.locked


async def test_a_locked_keyring_is_told_apart() -> None:
    backend = FakeKeyring(KeyringLocked("Failed to unlock the collection!"))
    store = KeyringStore(choose=lambda: backend)
    error = await failure_of(store)
    assert isinstance(error, VaultLocked)
    assert store.locked
    with pytest.raises(VaultLocked):
        await store.unlock("a keyring has its own password")
    backend.failure = None
    await store.unlock("")
    assert not store.locked


async def test_an_absent_service_and_an_odd_refusal() -> None:
    for failure, code in ((InitError("x"), "keyring_unavailable"), (RuntimeError("odd"), "keyring_failed")):
        backend = FakeKeyring(failure)
        assert (await failure_of(KeyringStore(choose=lambda b=backend: b))).code == code  # type: ignore[misc]


async def test_a_keyring_that_forgets_fails_the_probe() -> None:
    backend = FakeKeyring()
    backend.set_password = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match="does not give back"):
        await KeyringStore(choose=lambda: backend).probe()


async def test_an_unanswered_window_is_given_up_and_works_once_answered() -> None:
    answered = threading.Event()
    backend = FakeKeyring(before=lambda: answered.wait(30))
    store = KeyringStore(choose=lambda: backend, time_limit=0.05)
    error = await failure_of(store)
    assert (error.category, error.code) == (Category.TIMEOUT, "keyring_silent")
    assert "secret_store" in error.advice
    assert store.locked
    answered.set()
    patient = KeyringStore(choose=lambda: backend)
    await patient.set("a", "now stored")
    assert await patient.get("a") == "now stored"
    workers = [thread for thread in threading.enumerate() if thread.name == "callboard-keyring"]
    assert all(worker.daemon for worker in workers), "none may keep the program from ending"


@pytest.fixture
def selected() -> Iterator[Callable[[KeyringBackend], None]]:
    before = keyring.core._keyring_backend
    yield keyring.set_keyring
    keyring.core._keyring_backend = before


async def test_backends_that_hide_nothing_are_refused(
    selected: Callable[[KeyringBackend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = type("PlaintextKeyring", (FakeKeyring,), {"__module__": "keyrings.alt.file"})
    asking = type("CryptFileKeyring", (FakeKeyring,), {"__module__": "keyrings.cryptfile.cryptfile"})
    for backend in (NO_KEYRING, NULL_KEYRING, plain(), asking()):
        selected(backend)
        with pytest.raises(ServiceError) as caught:
            choose_backend()
        assert caught.value.code == "keyring_unavailable"
        assert caught.value.advice
    own = FakeKeyring()
    selected(own)
    assert choose_backend() is own
    service = type("Keyring", (FakeKeyring,), {"__module__": "keyring.backends.SecretService"})()
    chain = type("ChainerBackend", (FakeKeyring,), {"backends": [plain(), own, service]})
    selected(chain())
    assert choose_backend() is service
    assert KeyringStore(choose=lambda: service).label == "keyring"


# -- open_store -----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vault, "_N", 2**10)
    monkeypatch.setattr(opening, "_working", {})
    return tmp_path / "secrets.json"


async def test_auto_takes_a_working_keyring_and_probes_it_once(
    place: Path, selected: Callable[[KeyringBackend], None]
) -> None:
    backend = FakeKeyring()
    writes: list[int] = []
    backend.before = lambda: writes.append(1)
    selected(backend)
    store = await open_store("auto", file=place, passphrase="unused phrase")
    assert store.kind == "keyring"
    probed = len(writes)
    again = await open_store("auto", file=place, passphrase=None)
    assert (again.kind, len(writes)) == ("keyring", probed)
    assert again.label == store.label
    assert not place.exists()


async def test_auto_falls_back_to_the_file(place: Path, selected: Callable[[KeyringBackend], None]) -> None:
    selected(NO_KEYRING)
    locked = await open_store("auto", file=place, passphrase=None)
    assert (locked.kind, locked.locked) == ("file", True)
    store = await open_store("auto", file=place, passphrase="a long phrase")
    assert (store.kind, store.locked) == ("file", False)
    await store.set("a", "value in file")
    selected(FakeKeyring())
    again = await open_store("auto", file=place, passphrase="a long phrase")
    assert again.kind == "file", "keys stay where they are"
    assert await again.get("a") == "value in file"


async def test_auto_does_not_start_over_when_the_used_keyring_is_silent(
    place: Path, selected: Callable[[KeyringBackend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = FakeKeyring()
    selected(backend)
    await (await open_store("auto", file=place, passphrase=None)).set("a", "value in keyring")
    monkeypatch.setattr(opening, "_working", {})
    backend.failure = KeyringLocked()
    with pytest.raises(VaultLocked) as caught:
        await open_store("auto", file=place, passphrase="a long phrase")
    assert "keys are in this machine's keyring" in caught.value.message
    assert 'secret_store = "file"' in caught.value.advice
    asked = await open_store("file", file=place, passphrase="a long phrase")
    assert isinstance(asked, FileStore)


async def test_a_keyring_that_was_asked_for_must_work(
    place: Path, selected: Callable[[KeyringBackend], None]
) -> None:
    selected(NO_KEYRING)
    with pytest.raises(ServiceError) as caught:
        await open_store("keyring", file=place, passphrase="a long phrase")
    assert caught.value.code == "keyring_unavailable"


@pytest.mark.parametrize("choice", ["auto", "file", "keyring"])
@pytest.mark.parametrize("passphrase", [None, "a long phrase"])
@pytest.mark.parametrize("used", ["", "file", "keyring"])
async def test_what_is_seen_at_a_glance_is_what_opens(
    choice: str,
    passphrase: str | None,
    used: str,
    place: Path,
    selected: Callable[[KeyringBackend], None],
) -> None:
    selected(FakeKeyring())
    if used:
        await (await open_store(used, file=place, passphrase="a long phrase", service="ours")).set(
            "a", "secret"
        )
    seen = store_at_a_glance(choice, file=place, passphrase=bool(passphrase), service="ours")
    assert store_at_a_glance("auto", file=place, passphrase=False, service="another") is None
    store = await open_store(choice, file=place, passphrase=passphrase, service="ours")
    if choice == "auto" and not used:
        assert seen is None, "only a probe can tell"
    else:
        assert seen is not None
        assert (seen[0], seen[1]) == (store.label.split(" (")[0], store.locked)


# -- a real Secret Service ------------------------------------------------------------------------

CHILD = """
import asyncio, subprocess, sys
from pathlib import Path
import secretstorage
from services.errors import VaultLocked
from services.security import KeyringStore, open_store

async def main(daemon, place):
    subprocess.run([daemon, "--unlock", "--components=secrets"], input=b"password", check=True,
                   stdout=subprocess.DEVNULL, timeout=30)
    store = await open_store("auto", file=Path(place) / "secrets.json", passphrase=None)
    print(store.kind, "|", store.label)
    await store.set("connection/1", "canary-in-the-service")
    other = KeyringStore("callboard-other")
    print(await other.get("connection/1"), await KeyringStore().get("connection/1"))
    await store.set("connection/1", "canary-replaced")
    print(await store.get("connection/1"))
    await other.set("connection/1", "canary-of-another")
    await other.delete("connection/1")
    print(await other.get("connection/1"))
    bus = secretstorage.dbus_init()
    collection = secretstorage.get_default_collection(bus)
    collection.lock()
    try:
        await store.get("connection/1")
    except VaultLocked as error:
        print("locked:", error.code, store.locked)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_real_secret_service() -> None:
    """gnome-keyring under a D-Bus of its own, with its own home: nothing of this machine is touched."""
    session, daemon = need("dbus-run-session", "gnome-keyring-daemon")
    # Short: the path of a Unix socket has about a hundred characters.
    place = Path(tempfile.mkdtemp(prefix="cb-"))
    try:
        (place / "run").mkdir(mode=0o700)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(place),
            "XDG_RUNTIME_DIR": str(place / "run"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        done = await asyncio.to_thread(
            subprocess.run,
            [session, "--", sys.executable, "-c", CHILD, daemon, str(place)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "keyring | keyring (Secret Service)",
            "None canary-in-the-service",
            "canary-replaced",
            "None",
            "locked: keyring_locked True",
        ]
        assert "canary" not in done.stderr
        for file in place.rglob("*"):
            assert not file.is_file() or b"canary" not in file.read_bytes()
    finally:
        shutil.rmtree(place, ignore_errors=True)
