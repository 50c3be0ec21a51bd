"""Prepared loads against marshmallow's own: the same values, the same errors."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, ValidationError, fields, post_load

from iaas.api.v1.instances import NewInstanceSchema
from iaas.api.v1.loading import PlainSchema

PLAIN = {"kind": "vm", "image": "tiny"}
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["vm", "container", "tiny", "", "a b", " a", "plain", "base64", "x" * 200, "1"]),
    st.integers(-2, 600),
    st.sampled_from([True, False, None, 1.0, 2.5, [], ["a"], ["a", 1], {}, {"a": "b"}, {"a": 1}, 10**30]),
    st.fixed_dictionaries({"affinity": st.fixed_dictionaries({"label_selector": st.just("a=b")})}),
)
NAMES = st.sampled_from([*NewInstanceSchema().fields, "unknown"])


def outcome(load: Any, data: Any) -> tuple[str, Any]:
    try:
        return "loaded", load(data)
    except ValidationError as error:
        return "refused", error.normalized_messages()


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.booleans())
def test_it_loads_as_marshmallow_does(data: dict[str, Any], with_required: bool) -> None:
    schema = NewInstanceSchema()
    body = {**PLAIN, **data} if with_required else data
    assert outcome(schema.load, body) == outcome(lambda each: Schema.load(schema, each), body)


def test_plain_input_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_options: Any) -> Any:
        raise AssertionError("this should not be needed")

    monkeypatch.setattr(Schema, "load", never)
    body = {**PLAIN, "vcpus": 1, "memory_mib": 128, "name": "a", "labels": {"a": "b"}, "nesting": True}
    assert NewInstanceSchema().load(body) == {**body, "user_data_encoding": "plain"}


def test_what_marshmallow_may_be_told_is_obeyed() -> None:
    schema = NewInstanceSchema()
    assert schema.load([PLAIN], many=True) == [{**PLAIN, "user_data_encoding": "plain"}]
    assert schema.load({"name": "a"}, partial=True) == {"name": "a"}
    assert schema.load({**PLAIN, "x": 1}, unknown="exclude") == {**PLAIN, "user_data_encoding": "plain"}


def test_a_schema_with_hooks_is_refused() -> None:
    class Hooked(PlainSchema):
        name = fields.String()

        @post_load
        def change(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
            return {}

    with pytest.raises(TypeError, match="hooks"):
        Hooked().load({"name": "a"})
