"""Reading collections: one page, all pages lazily, one resource by id or name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from iaas.client.errors import UnexpectedAnswer
from iaas.client.resource import Resource, item_path, label_selector, mapping_of

if TYPE_CHECKING:
    from iaas.client.client import Client

R = TypeVar("R", bound=Resource)
Filter = str | int | bool | datetime | Mapping[str, str] | None


@dataclass(frozen=True, kw_only=True)  # no slots: Python 3.11 cannot make a slotted, frozen Generic[X](...)
class Page(Generic[R]):
    """One page of a list. ``next_cursor`` asks for the next one; None when this is the last."""

    items: tuple[R, ...]
    next_cursor: str | None
    raw: Mapping[str, Any]

    def __iter__(self) -> Iterator[R]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Collection(Generic[R]):
    """One kind of resource as the server has it.

    Args:
        path: of those that live within another resource; the model's own when absent.
    """

    cursor_parameter = "cursor"

    def __init__(self, client: Client, model: type[R], *, path: str | None = None) -> None:
        self._client = client
        self._model = model
        self._path = path or model.path

    def get(self, id_or_name: str) -> R:
        """Return one resource by its id, or by its name within the project.

        Raises:
            NotFound: there is none.
        """
        path = item_path(self._model, id_or_name, within=self._path)
        return self._model.from_answer(self._client, self._client.request("GET", path))

    def find(self, name: str) -> R | None:
        """Return the resource with exactly this name, None when there is none (an id is no name)."""
        return next((each for each in self.list(name=name) if each.name == name), None)

    def list(self, *, limit: int | None = None, cursor: str | None = None, **filters: Filter) -> Page[R]:
        """Return one page.

        Args:
            limit: at most so many, 1 to 1000; the server's default is 100.
            cursor: ``next_cursor`` of the page before.
            filters: the server's query parameters: ``name``, ``status``, ``sort`` (``"-created_at"``),
                ``label_selector`` (``"a=b,!c"``, or a mapping of labels that must all be there), and those of
                the resource. None is no filter.

        Raises:
            InvalidInput: a filter the server does not know.
        """
        params = {"limit": limit, **{name: _filter(value) for name, value in filters.items()}}
        if cursor is not None:
            params[self.cursor_parameter] = cursor
        answer = mapping_of(self._client.request("GET", self._path, params=params), self._path)
        items = answer.get("items")
        if not isinstance(items, list):
            raise UnexpectedAnswer(f"the server sent no list of items for {self._path}")
        return Page(
            items=tuple(self._model.from_answer(self._client, each) for each in items),
            next_cursor=answer.get("next_cursor"),
            raw=answer,
        )

    def iterate(self, *, page_size: int | None = None, **filters: Filter) -> Iterator[R]:
        """Yield all resources, fetching the next page when the last one is used up. Filters as in ``list``."""
        cursor: str | None = None
        while True:
            page = self.list(limit=page_size, cursor=cursor, **filters)
            yield from page
            if not page.next_cursor or page.next_cursor == cursor:
                return
            cursor = page.next_cursor

    def _create(self, **fields: Any) -> R:
        """Return a new resource of the given fields; those that are None are left to the server."""
        return self._model.from_answer(self._client, self._post(fields))

    def _post(self, fields: Mapping[str, Any]) -> object:
        """Return the answer to a create with those fields that are not None."""
        body = {name: value for name, value in fields.items() if value is not None}
        return self._client.request("POST", self._path, body=body)


def _filter(value: Filter) -> str | int | bool | datetime | None:
    return label_selector(value) if isinstance(value, Mapping) else value
