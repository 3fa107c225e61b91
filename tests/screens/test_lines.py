"""Lines that are painted one by one."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.geometry import Size

from screens.widgets.lines import Lines, Row
from tests.support.console import until


class Figures(Lines):
    def __init__(self) -> None:
        super().__init__()
        self.values = ["a", "b", "c"]

    def rows(self, width: int) -> list[Row]:
        return [([(value, "plain")], []) for value in self.values]


class Small(App[str]):
    def compose(self) -> ComposeResult:
        self.figures = Figures()
        yield self.figures


def shown(app: Small) -> list[str]:
    return [strip.text.strip() for strip in app.screen._compositor.render_strips()][: len(app.figures.values)]


async def test_what_changes_between_marking_and_painting_is_not_lost() -> None:
    app = Small()
    async with app.run_test(size=(20, 6)) as pilot:
        await until(pilot, lambda: shown(app) == ["a", "b", "c"])
        app.figures.values[0] = "A"
        app.figures.redraw()
        app.figures.values[1] = "B"  # before the first change was painted
        await until(pilot, lambda: shown(app)[0] == "A")
        app.figures.redraw()
        await until(pilot, lambda: shown(app) == ["A", "B", "c"])


async def test_more_lines_make_it_higher() -> None:
    app = Small()
    async with app.run_test(size=(20, 6)) as pilot:
        await until(pilot, lambda: app.figures.size == Size(20, 3))
        app.figures.values.append("d")
        app.figures.redraw()
        await until(pilot, lambda: shown(app) == ["a", "b", "c", "d"])
        app.figures.values[:] = ["z"]
        app.figures.redraw()
        await until(pilot, lambda: app.figures.size == Size(20, 1))
        assert shown(app) == ["z"]
