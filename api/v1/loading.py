"""Schemas whose input is read by a prepared function where it is plain: the same result, many times as fast.

Marshmallow asks every field what to do with what came. For scalars the answer is always the same, so it is worked
out once per schema. Whatever is not plainly right (a wrong type, a failing rule, an unknown or missing member, a
field of a kind that is not known here) goes to marshmallow, which alone says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing
from marshmallow.types import UnknownOption

from iaas.api.v1.schemas import LabelsField, StrictBoolean, StrictInteger

_HOOKS = ("pre_load", "post_load", "validates", "validates_schema")

_Check = Callable[[Any], bool]


class PlainSchema(Schema):
    """A schema without hooks that loads plain input fast. Everything else is as usual."""

    _checks: Mapping[str, _Check] | None = None

    def load(
        self,
        data: Any,
        *,
        many: bool | None = None,
        partial: Any = None,
        unknown: UnknownOption | None = None,
    ) -> Any:
        """Return what marshmallow would; raises ValidationError as it would."""
        strict = (unknown or self.unknown) == RAISE
        if strict and not (self.many if many is None else many) and not partial and not self.partial:
            loaded = self._load_plain(data)
            if loaded is not None:
                return loaded
        return super().load(data, many=many, partial=partial, unknown=unknown)

    def _load_plain(self, data: Any) -> dict[str, Any] | None:
        if type(data) is not dict:
            return None
        checks = self._checks
        if checks is None:
            checks = self._prepare()
        for name, value in data.items():
            check = checks.get(name)
            if check is None or not check(value):
                return None
        if not self._required <= data.keys():
            return None
        return {**self._defaults, **data}

    def _prepare(self) -> Mapping[str, _Check]:
        declared = self.load_fields
        if any(self._hooks.get(hook) for hook in _HOOKS) or any(
            callable(field.load_default) for field in declared.values()
        ):
            raise TypeError(f"{type(self).__name__}: a schema with hooks or computed defaults is not plain")
        self._required = frozenset(name for name, field in declared.items() if field.required)
        self._defaults = {
            name: field.load_default for name, field in declared.items() if field.load_default is not missing
        }
        checks = self._checks = {name: _check_of(field) for name, field in declared.items()}
        return checks


def _check_of(field: fields.Field[Any]) -> _Check:
    """Return what tells whether a value passes as it is."""
    if field.data_key is not None or field.attribute is not None:
        return _never
    validators = field.validators

    def valid(value: Any) -> bool:
        try:
            for validator in validators:
                validator(value)
        except ValidationError:
            return False
        return True

    if type(field) is fields.String:
        return lambda value: type(value) is str and valid(value)
    if type(field) is StrictInteger:
        return lambda value: type(value) is int and valid(value)
    if type(field) is StrictBoolean:
        return lambda value: type(value) is bool and valid(value)
    if type(field) is LabelsField:
        return lambda value: (
            type(value) is dict
            and all(type(key) is str and type(member) is str for key, member in value.items())
            and valid(value)
        )
    return _never


def _never(_value: Any) -> bool:
    return False
