import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import LABELS, WORKING, carried_names


def names(*own: str) -> list[str]:
    return list(carried_names(pa.schema([(name, pa.string()) for name in own])).values())


def test_a_name_that_is_taken_in_any_case_gets_a_prefix() -> None:
    assert names("Label", "WIDTH", "Score", "split") == [
        "manifest_Label",
        "manifest_WIDTH",
        "manifest_Score",
        "split",
    ]
    assert names("id", "ID", "Id") == ["id", "manifest_ID", "manifest_manifest_Id"]


def test_in_errors_a_name_of_its_own_columns_gets_a_prefix_too() -> None:
    carried = pa.schema([(name, pa.string()) for name in ("Code", "width", "split", "uri_is_cut")])
    assert carried_names(carried, "errors") == {
        "Code": "manifest_Code",
        "width": "manifest_width",
        "split": "split",
        "uri_is_cut": "manifest_uri_is_cut",
    }
    assert carried_names(carried)["Code"] == "Code"


@given(st.lists(st.sampled_from(["Label", "label", "Manifest_Label", "unit", "UNIT", "a", "A"]), unique=True))
def test_no_two_columns_differ_by_case_alone(own: list[str]) -> None:
    every = [name.casefold() for name in (*LABELS.names, *WORKING, *names(*own))]
    assert len(every) == len(set(every))
