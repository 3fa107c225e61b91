"""Every partner there is: those that come with the program, and the operator's own mapping files."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib import resources
from pathlib import Path

from services.errors import UsageError
from services.integrations.bookings.mapping import Partner, parse_partner, read_partner
from services.integrations.model import AdapterInfo, Kind
from services.text import clean_line


@dataclass(frozen=True, slots=True)
class PartnerEntry:
    """A partner and where its file is; `file` is empty for one of the program's own."""

    partner: Partner
    file: str = ""


class PartnerCatalogue:
    """Reads every mapping file once. Its methods read files the first time: for a thread."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def entries(self) -> list[PartnerEntry]:
        """Every partner whose file is right, by name."""
        return [self._read[0][name] for name in sorted(self._read[0])]

    def problems(self) -> list[UsageError]:
        """What is wrong with the operator's own files."""
        return list(self._read[1].values())

    def find(self, name: str) -> Partner | None:
        """The partner of this name. Raises UsageError when its file is wrong."""
        found, problems = self._read
        if name in problems:
            raise problems[name]
        return found[name].partner if name in found else None

    def require(self, name: str) -> Partner:
        """The partner of this name. Raises UsageError for an unknown one."""
        partner = self.find(name)
        if partner is None:
            known = sorted(self._read[0])
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
            raise UsageError(
                f"There is no partner {clean_line(name)!r}", advice=advice, code="unknown_partner"
            )
        return partner

    def adapters(self) -> list[AdapterInfo]:
        """What can be configured for speaking to each directly."""
        return [
            AdapterInfo(
                entry.partner.partner,
                Kind.BOOKINGS,
                entry.partner.title,
                secret=entry.partner.secret,
                default_url=entry.partner.base_url,
                config=entry.partner.settings,
            )
            for entry in self.entries()
        ]

    @cached_property
    def _read(self) -> tuple[dict[str, PartnerEntry], dict[str, UsageError]]:
        found: dict[str, PartnerEntry] = {}
        problems: dict[str, UsageError] = {}
        own = resources.files(__package__) / "partners"
        for file in own.iterdir():
            if file.name.endswith(".yaml"):
                partner = parse_partner(file.read_text(encoding="utf-8"), file.name)
                found[partner.partner] = PartnerEntry(partner)
        folder = self._folder
        for path in sorted(folder.glob("*.yaml")) if folder is not None and folder.is_dir() else []:
            try:
                partner = read_partner(path)
            except UsageError as error:
                found.pop(path.stem, None)
                problems[path.stem] = error
            else:
                found[partner.partner] = PartnerEntry(partner, str(path))
        return found, problems
