"""What all resources share: fields, reading them from JSON, and the verbs that need only an id.

Resources are frozen: a verb returns a new value, or an ``Action`` that gives one. Fields that a newer server
sends are not lost: ``raw`` is the answer as it came.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast
from urllib.parse import quote

from iaas.client.errors import NotFound, UnexpectedAnswer, resource_ref
from iaas.kernel.errors import Failure

if TYPE_CHECKING:
    from iaas.client.client import Client

T = TypeVar("T")
_DECODE = "decode"


@dataclass(frozen=True, slots=True)
class Unset:
    """The type of ``UNSET``: a field that a change leaves alone (None would clear it)."""


UNSET = Unset()


def reads(read: Callable[[Any], Any]) -> Mapping[str, Any]:
    """Return the metadata of a dataclass field whose JSON value goes through ``read``."""
    return {_DECODE: read}


def reads_all(read: Callable[[Any], Any]) -> Mapping[str, Any]:
    """Return the metadata of a dataclass field that holds a list, each value through ``read``."""
    return {_DECODE: lambda values: tuple(read(each) for each in values)}


TIME = reads(datetime.fromisoformat)
STRINGS = reads(tuple)


def decode(cls: type[T], data: object, **extra: Any) -> T:
    """Return ``data``, a JSON object, as a ``cls``. Unknown members are skipped, null means the field's default.

    Raises:
        UnexpectedAnswer: it is no object, or a member has a shape that cannot be read.
    """
    if not isinstance(data, Mapping):
        raise UnexpectedAnswer(f"the server sent no {cls.__name__} where one was due")
    values: dict[str, Any] = {}
    try:
        for each in dataclasses.fields(cls):  # type: ignore[arg-type]  # T is a dataclass; typing cannot say so
            value = data.get(each.name)
            if value is not None:
                read = each.metadata.get(_DECODE)
                values[each.name] = read(value) if read else value
        return cls(**(values | extra))
    except (TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(f"the server sent a {cls.__name__} that cannot be read: {error}") from error


def read_failure(data: Mapping[str, Any]) -> Failure:
    """Return ``{code, message}`` as a value."""
    return Failure(code=str(data.get("code", "")), message=str(data.get("message", "")))


def read_reference(data: Mapping[str, Any]) -> Any:
    """Return ``{type, id}`` as a value."""
    return resource_ref(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """Common to all resources. Times are aware UTC."""

    path: ClassVar[str]  # of the collection: "/v1/key_pairs"
    key: ClassVar[str]  # of the resource inside an answer: "key_pair"

    id: str
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    created_at: datetime | None = field(default=None, metadata=TIME)
    updated_at: datetime | None = field(default=None, metadata=TIME)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    client: Client = field(repr=False, compare=False)

    @classmethod
    def from_answer(cls, client: Client, answer: object) -> Self:
        """Return the resource of an answer, bare (``{"id": ...}``) or wrapped (``{"instance": {...}, ...}``)."""
        if isinstance(answer, Mapping) and "id" not in answer and cls.key in answer:
            answer = answer[cls.key]
        return decode(cls, answer, client=client, raw=answer)

    def refresh(self) -> Self:
        """Return the resource as it is now.

        Raises:
            NotFound: it is gone.
        """
        return self.from_answer(self.client, self.client.request("GET", self._own_path()))

    def _own_path(self, rest: str = "") -> str:
        return item_path(type(self), self.id) + rest

    def _patch(self, changes: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Self:
        return self.from_answer(self.client, self._patched(changes, headers=headers))

    def _patched(self, changes: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> object:
        """Return the answer to a merge patch of those ``changes`` that are not UNSET."""
        body = {name: value for name, value in changes.items() if not isinstance(value, Unset)}
        return self.client.request("PATCH", self._own_path(), body=body, headers=headers)

    def _remove(self) -> None:
        self.client.request("DELETE", self._own_path())


def item_path(cls: type[Resource], id_or_name: str, *, within: str | None = None) -> str:
    """Return the quoted path of one resource.

    Args:
        within: the path of its collection; the one of its class when absent.

    Raises:
        NotFound: for the few words that cannot be a path segment, and so no id or name.
    """
    if id_or_name in ("", ".", ".."):
        raise NotFound(f"there is no {cls.key} {id_or_name!r}", status=404, code="not_found")
    # Bytes of a shell argument that are not UTF-8 go out as they are; the server has the last word on them.
    return f"{within or cls.path}/{quote(id_or_name, safe='', errors='surrogateescape')}"


def label_selector(labels: Mapping[str, str] | str | None) -> str | None:
    """Return a selector: ``{"a": "b", "c": "d"}`` is ``a=b,c=d``; a string is one already."""
    if labels is None or isinstance(labels, str):
        return labels or None
    return ",".join(f"{name}={value}" for name, value in labels.items()) or None


def mapping_of(answer: object, what: str) -> Mapping[str, Any]:
    """Return ``answer`` if it is a JSON object.

    Raises:
        UnexpectedAnswer: it is something else.
    """
    if not isinstance(answer, Mapping):
        raise UnexpectedAnswer(f"the server sent no object for {what}")
    return cast("Mapping[str, Any]", answer)
