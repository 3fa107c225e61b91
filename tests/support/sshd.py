"""A real SSH server on loopback, with a host key and a user key made for the occasion."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import need, unavailable

SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")
PATIENCE = 20.0


@dataclass(frozen=True)
class Sshd:
    """A running server and what a client needs to get in."""

    port: int
    key: Path
    client: str
    log: Path

    def command(self, remote: str, *options: str) -> list[str]:
        """The client's command line, with a terminal on the other side."""
        settings = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "GlobalKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "ControlPath=none",
        )
        flags = [word for setting in settings for word in ("-o", setting)]
        who = f"{getpass.getuser()}@127.0.0.1"
        return [self.client, "-F", "/dev/null", "-tt", *flags, "-i", str(self.key), "-p", str(self.port),
                *options, who, remote]  # fmt: skip


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """Serve the user who runs the tests. Without the programs the test is skipped, or fails in CI."""
    server, client, keygen = need("sshd", "ssh", "ssh-keygen", folders=SBIN)
    for name in ("host_key", "user_key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    (folder / "authorized_keys").write_bytes((folder / "user_key.pub").read_bytes())
    port = _free_port()
    log = folder / "sshd.log"
    (folder / "sshd_config").write_text(_configuration(folder, port))
    if os.geteuid() == 0:
        # Where sshd separates privileges, it wants this folder; a package's service would have made it.
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    process = subprocess.Popen([server, "-D", "-f", str(folder / "sshd_config"), "-E", str(log)])
    try:
        _wait_until_it_listens(process, port, log)
        yield Sshd(port, folder / "user_key", client, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def _configuration(folder: Path, port: int) -> str:
    return f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder / "host_key"}
AuthorizedKeysFile {folder / "authorized_keys"}
PidFile {folder / "sshd.pid"}
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
PrintLastLog no
AcceptEnv CALLBOARD_* COLORTERM LANG PYTHON_KEYRING_BACKEND
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            unavailable(f"sshd does not start here: {log.read_text(errors='replace').strip()[-300:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    unavailable("sshd does not listen")
