"""Embeddings: texts as vectors, by the API of OpenAI (`POST /embeddings`), which many servers speak."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any, Final

from services.errors import ServiceError
from services.http.client import Call, Http
from services.http.wire import wrong_shape
from services.integrations.llm.endpoints import Endpoints, models_of, number_of, object_of
from services.integrations.model import Resolved
from services.resilience import Policy, Subject

BATCH: Final = 64
DIALECT: Final = "openai"


class Embedder:
    """One embedding endpoint and its model."""

    def __init__(self, where: Resolved, http: Http) -> None:
        config = where.info.config
        self.name = where.info.policy
        self._http = http
        self._model = str(config.get("model") or "")
        dimensions = number_of(config.get("dimensions"), "dimensions")
        self._dimensions = int(dimensions) if dimensions else None
        self.batch = max(1, min(2048, int(number_of(config.get("batch"), "batch") or BATCH)))
        self.least = min(1.0, number_of(config.get("least_similarity"), "least_similarity") or 0.0)

    @classmethod
    async def open(cls, where: Resolved, endpoints: Endpoints) -> Embedder:
        """Raises ServiceError for a wrong address or option."""
        return cls(where, await endpoints.of(where, dialect=DIALECT))

    @property
    def model(self) -> str:
        """What vectors of this endpoint are marked with: those of another mark do not compare with them."""
        return f"{self._model}/{self._dimensions}" if self._dimensions else self._model

    async def embed(
        self,
        texts: Sequence[str],
        make: Callable[[Sequence[float]], array[float]],
        *,
        subject: Subject | None = None,
    ) -> list[array[float]]:
        """A vector for each text, in order; `make` turns a list of numbers into one. Raises ServiceError.

        Without a subject somebody has taken a turn of the limits before.
        """
        body: dict[str, Any] = {"model": self._model, "input": list(texts), "encoding_format": "float"}
        if self._dimensions:
            body["dimensions"] = self._dimensions

        def read(text: str) -> list[array[float]]:
            return _vectors(object_of(text), len(texts), make)

        return await self._http.read(Call("POST", "/embeddings", body=body), read, subject=subject)

    async def probe(self) -> str:
        """Ask which models there are: free, embeds nothing, and counts against nobody's limits.

        Raises ServiceError, `untestable` where that is not told.
        """
        return await models_of(self._http, Call("GET", "/models"), self._model, self.name)

    @property
    def policy(self) -> Policy:
        """What its requests go through."""
        return self._http.policy


def _vectors(
    data: dict[str, Any], count: int, make: Callable[[Sequence[float]], array[float]]
) -> list[array[float]]:
    items = data.get("data")
    if not isinstance(items, list):
        raise wrong_shape("a list in 'data'", items)
    found: dict[int, array[float]] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict) or not isinstance(item.get("embedding"), list):
            raise wrong_shape("a vector in each of 'data'", item)
        index = item.get("index", place)
        found[index if isinstance(index, int) else place] = make(item["embedding"])
    if set(found) != set(range(count)):
        raise ServiceError(
            f"{len(found)} vectors came for {count} texts",
            advice="Check that the address is an embedding endpoint; a smaller option batch may help",
            code="wrong_shape",
        )
    if len({len(vector) for vector in found.values()}) > 1:
        raise ServiceError(
            "The vectors of one answer differ in length",
            advice="Check that the address is an embedding endpoint",
            code="wrong_shape",
        )
    return [found[index] for index in range(count)]
