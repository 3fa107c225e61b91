"""What is advised in the demo is advised for the demo."""

from __future__ import annotations

import pytest

from app.cli import main
from app.commands._demo import command
from tests.support.program import real_environment


def test_a_command_for_the_companies_that_are_meant() -> None:
    assert command("sync", demo=True) == "callboard --demo sync"
    assert command("sync", demo=False) == "callboard sync"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("agents", "list"), "callboard --demo sync"),
        (("agents", "show", "Reception"), "callboard --demo sync"),
        (("runs",), "callboard --demo sync"),
        (("runs", "zzz"), "callboard --demo runs lists them"),
    ],
)
def test_on_a_fresh_demo(
    words: tuple[str, ...],
    advice: str,
    tmp_path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in real_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("app.logs.set_up", lambda folder, level: None)
    main(["--demo", *words])
    said = capsys.readouterr()
    assert advice in said.out + said.err
    assert "callboard sync" not in said.out + said.err
    main(list(words))
    assert "--demo" not in capsys.readouterr().err
