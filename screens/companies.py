"""Companies and their connections: add, connect, test, renew a key, remove."""

from __future__ import annotations

from collections.abc import Iterable

from textual import on
from textual.widget import Widget

from screens.actions import COMPANIES, bindings_of
from screens.dialogs import ConfirmDialog, KeyDialog, NameDialog, verdict
from screens.frame import Console, Frame
from screens.glyphs import Tone
from screens.live import Changes
from screens.table_keys import TableKeys
from screens.textfit import display, width_of
from screens.widgets.table import Column, LineTable, Row
from services.model import CompanyInfo, ConnectionInfo
from services.text import age

COLUMNS = (
    Column("company / vendor", 22),
    Column("region", 8, rank=2),
    Column("base URL", rank=0),
    Column("agents", 6, right=True),
    Column("last sync", 9, right=True, rank=1),
    Column("key", 20),
)


class CompaniesScreen(TableKeys, Frame):
    """A heading per company, a line per connection."""

    place = COMPANIES
    BINDINGS = bindings_of(COMPANIES)

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.table = LineTable(COLUMNS, self.glyphs, ident="companies")
        self.table.empty = [("reading", Tone.MUTED)]
        self.companies: list[CompanyInfo] = []
        self.connections: dict[int, ConnectionInfo] = {}
        self.verdicts: dict[int, tuple[str, Tone]] = {}
        """What the last test of a connection said, by connection."""

    def work(self) -> Iterable[Widget]:
        yield self.table

    def on_mount(self) -> None:
        self._reload()

    def show(self, changes: Changes) -> None:
        if changes.companies or changes.finished:
            self._reload()
        self.redraw_bars()

    def _reload(self) -> None:
        self.console_app.perform(self._read, group="companies")

    async def _read(self) -> None:
        await self.console_app.ready()
        self.companies = await self.services.companies.list()
        connections = await self.services.companies.connections()
        self.connections = {connection.id: connection for connection in connections}
        if not self.is_mounted:
            return
        self._fill()
        self.redraw_bars()

    def _fill(self) -> None:
        rows: list[Row] = []
        for company in self.companies:
            own = [each for each in self.connections.values() if each.company_id == company.id]
            rows.append(self._heading(company, connected=bool(own)))
            rows += [self._row(connection) for connection in own]
        self.table.empty = [
            ("No company yet", Tone.PLAIN),
            ("", Tone.PLAIN),
            ("a adds one; then c connects it with a key of Retell or ElevenLabs", Tone.ACCENT),
            ("the key is tested before it is stored, and stored outside of the database", Tone.MUTED),
        ]
        self.table.set_rows(rows)

    def _heading(self, company: CompanyInfo, *, connected: bool) -> Row:
        key, hint = ("company", company.id), "" if connected else "c connects a vendor"
        if width_of(display(company.name)) > COLUMNS[0].width:
            # The line is free but for the name: it has all of it.
            more = hint or f"{company.agents:,} agent{'' if company.agents == 1 else 's'}"
            return Row(key, ((f"{company.name} {self.glyphs.dot} {more}", Tone.ACCENT),))
        nothing = ("", Tone.PLAIN)
        agents = (f"{company.agents:,}", Tone.PLAIN)
        return Row(key, ((company.name, Tone.ACCENT), nothing, (hint, Tone.LOOK), agents, nothing, nothing))

    def _row(self, connection: ConnectionInfo) -> Row:
        synced = connection.last_sync_at
        return Row(
            ("connection", connection.id),
            (
                (f"{self.glyphs.dot} {connection.provider.value}", Tone.PLAIN),
                (connection.residency, Tone.MUTED),
                (connection.base_url.removeprefix("https://"), Tone.MUTED),
                (f"{connection.agents:,}", Tone.PLAIN),
                (age(synced, self.services.clock.now()), Tone.MUTED),
                self.verdicts.get(connection.id, ("stored, t tests it", Tone.MUTED)),
            ),
        )

    # -- what the cursor is on --------------------------------------------------------------------

    def _connection(self) -> ConnectionInfo | None:
        row = self.table.current
        return self.connections.get(row.key[1]) if row is not None and row.key[0] == "connection" else None

    def _company(self) -> CompanyInfo | None:
        row = self.table.current
        if row is None:
            return None
        connection = self._connection()
        wanted = connection.company_id if connection is not None else row.key[1]
        return next((company for company in self.companies if company.id == wanted), None)

    def is_available(self, method: str) -> bool:
        if method in ("test_connection", "rotate_key"):
            return self._connection() is not None
        if method in ("add_connection", "remove"):
            return self._company() is not None
        return True

    @on(LineTable.Moved)
    def _moved(self) -> None:
        self.redraw_bars()

    # -- actions ----------------------------------------------------------------------------------

    def action_add_company(self) -> None:
        if self.services.demo is not None:
            self.console_app.set_up()
            return

        async def add(name: str) -> None:
            company = await self.services.companies.add(name)
            await self._read()
            keys = [row.key for row in self.table.lines]
            if ("company", company.id) in keys:
                self.table.move(keys.index(("company", company.id)) - self.table.cursor)

        def added(done: bool | None) -> None:
            if done:
                self.action_add_connection()

        self.app.push_screen(NameDialog("Add a company", "Name", add), added)

    def action_add_connection(self) -> None:
        company = self._company()
        if company is None:
            return

        def connected(done: bool | None) -> None:
            if done:
                self.console_app.tell(f"{company.name} is connected", "Its agents are on their way: 1")
                self._reload()
                self._first_sync(company.name)

        def ask() -> None:
            self.app.push_screen(KeyDialog(self.services.companies, company.name, self.glyphs), connected)

        self.console_app.after_unlock(ask)

    def _first_sync(self, company: str) -> None:
        """Who connects a vendor wants to see its agents."""
        from services.agents import SyncRequest

        self.services.sync.start(SyncRequest(company=company, cause="new connection"))

    def action_rotate_key(self) -> None:
        connection = self._connection()
        if connection is None:
            return

        def renewed(done: bool | None) -> None:
            if done:
                self.verdicts[connection.id] = ("new key works", Tone.OK)
                self._fill()

        def ask() -> None:
            dialog = KeyDialog(
                self.services.companies, connection.company, self.glyphs, connection=connection
            )
            self.app.push_screen(dialog, renewed)

        self.console_app.after_unlock(ask)

    def action_test_connection(self) -> None:
        connection = self._connection()
        if connection is None:
            return

        async def test() -> None:
            self.verdicts[connection.id] = (f"{self.glyphs.cursor} asking", Tone.MOVING)
            self._fill()
            try:
                check = await self.services.companies.test(connection.company, connection.provider)
            except Exception:
                self.verdicts.pop(connection.id, None)
                self._fill()
                raise
            word = {"ok": "works", "wrong_key": "wrong key", "missing_permission": "lacks permission"}
            sign = self.glyphs.ok if check.ok else self.glyphs.failed
            self.verdicts[connection.id] = (
                f"{sign} {word.get(check.code, check.code.replace('_', ' '))}",
                Tone.OK if check.ok else Tone.ACT,
            )
            self._fill()
            self.console_app.tell(verdict(check), failed=not check.ok)

        self.console_app.after_unlock(lambda: self.console_app.perform(test, group="test"))

    def action_remove(self) -> None:
        connection, company = self._connection(), self._company()
        if company is None:
            return

        async def remove() -> None:
            if connection is not None:
                await self.services.companies.remove_connection(connection.company, connection.provider)
            else:
                await self.services.companies.remove(company.name)
            await self._read()

        def answered(agreed: bool | None) -> None:
            if agreed:
                self.console_app.perform(remove, group="companies")

        if connection is not None:
            title = f"Remove {connection.provider.value} of {connection.company}?"
            held = f"{connection.agents:,} agents with their history and the key leave this machine. "
            dialog = ConfirmDialog(title, held + "Nothing changes at the vendor.")
        else:
            title = f"Remove {company.name}?"
            held = f"Its keys and {company.agents:,} agents with their history leave this machine. "
            dialog = ConfirmDialog(title, held + "Nothing changes at the vendors.", typed=company.name)
        self.app.push_screen(dialog, answered)

    def action_home(self) -> None:
        self.app.pop_screen()
