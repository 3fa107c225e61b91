"""Every adapter there is: what the packages bring, and a partner's for each mapping file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from services.integrations.model import AdapterInfo

PACKAGES: Final = ("messages", "bookings", "crm", "knowledge", "llm")

log = logging.getLogger(__name__)


def adapters_of(*, partners: Path | None = None) -> Callable[[], Mapping[str, AdapterInfo]]:
    """A function that gives every adapter by name. Its first call imports and reads: for a thread.

    `partners`: the folder of the operator's own mapping files. A file that is wrong is left out here and
    told by `callboard integration partners`.
    """
    from functools import cache

    @cache
    def collected() -> Mapping[str, AdapterInfo]:
        found = [info for package in PACKAGES for info in _of_package(package)]
        from services.integrations.bookings.catalogue import PartnerCatalogue

        catalogue = PartnerCatalogue(partners)
        for problem in catalogue.problems():
            log.warning("A partner's mapping file is left out: %s", problem.message)
        taken = {info.name for info in found}
        found += [info for info in catalogue.adapters() if info.name not in taken]
        return {info.name: info for info in found}

    return collected


def _of_package(package: str) -> tuple[AdapterInfo, ...]:
    name = f"{__package__}.{package}.adapters"
    try:
        if find_spec(name) is None:
            return ()
    except ModuleNotFoundError:  # not even the package
        return ()
    adapters: tuple[AdapterInfo, ...] = import_module(name).ADAPTERS
    return adapters
