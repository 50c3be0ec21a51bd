from __future__ import annotations

import pytest

from iaas.kernel.errors import InvalidInput
from iaas.kernel.labels import MAX_LABELS, LabelTerm, check_labels, parse_selector


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  ", []),
        ("a=b", [LabelTerm("a", ("b",))]),
        ("a==b", [LabelTerm("a", ("b",))]),
        ("a=", [LabelTerm("a", ("",))]),
        (" a = b , c ", [LabelTerm("a", ("b",)), LabelTerm("c")]),
        ("a!=b", [LabelTerm("a", ("b",), True)]),
        ("!a", [LabelTerm("a", (), True)]),
        ("g in (h, i),j notin (k)", [LabelTerm("g", ("h", "i")), LabelTerm("j", ("k",), True)]),
        ("example.com/app=web:1@sha/x", [LabelTerm("example.com/app", ("web:1@sha/x",))]),
    ],
)
def test_selectors(text: str, terms: list[LabelTerm]) -> None:
    assert parse_selector(text) == terms


@pytest.mark.parametrize(
    "text",
    [",", "a,", "=b", "!", "a=b c", "a in h", "a in (b", "a=b\n!", "-a", "a=\x00", "é", "/a", "a in (b,é)", "x" * 64],
)
def test_wrong_selectors_name_the_parameter(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_selector(text)
    assert caught.value.errors[0].field == "label_selector"


def test_a_selector_has_a_bounded_number_of_requirements() -> None:
    assert len(parse_selector(",".join(["a"] * 64))) == 64
    with pytest.raises(InvalidInput):
        parse_selector(",".join(["a"] * 65))


def test_labels_that_are_accepted() -> None:
    check_labels({})
    check_labels({"a": "", "example.com/app": "web:1/x@y+z", "A_b.c-d": "x" * 255})
    check_labels({f"k{number}": "" for number in range(MAX_LABELS)})


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ({"": "x"}, "invalid_key"),
        ({"a" * 64: "x"}, "invalid_key"),
        ({"-a": "x"}, "invalid_key"),
        ({"Example.com/a": "x"}, "invalid_key"),
        ({"a\n": "x"}, "invalid_key"),
        ({"a": "x\n"}, "invalid_value"),
        ({"a": "x y"}, "invalid_value"),
        ({"a": "x" * 256}, "invalid_value"),
        ({f"k{number}": "" for number in range(MAX_LABELS + 1)}, "too_many"),
    ],
)
def test_labels_that_are_refused(labels: dict[str, str], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_labels(labels)
    assert caught.value.errors[0].code == code
    assert caught.value.errors[0].field.startswith("labels")
