import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import LABELS, WORKING, RunTables, carried_names, fact_fields


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


def test_names_of_facts_are_taken_only_where_the_job_asks_for_them() -> None:
    carried = pa.schema([(name, pa.string()) for name in ("Latitude", "phash", "lens")])
    assert list(carried_names(carried).values()) == ["Latitude", "phash", "lens"]
    for table in ("labels", "errors"):
        assert carried_names(carried, table, ["exif"]) == {
            "Latitude": "manifest_Latitude",
            "phash": "phash",
            "lens": "manifest_lens",
        }
    assert [field.name for field in fact_fields(["phash", "exif"])][-1] == "phash"
    assert fact_fields([]) == []


def test_rows_of_the_workers_have_facts_beside_columns_of_their_names() -> None:
    carried = pa.schema([("phash", pa.string())])
    tables = RunTables(carried=carried, facts=("phash",))
    assert tables.results.names[-4:] == ["rows of boxes", "error", "uri_is_cut", "unit"]
    assert tables.results.names[-6:-4] == ["fact phash", "phash"]
    assert tables.schema("labels").names[-2:] == ["phash", "manifest_phash"]
