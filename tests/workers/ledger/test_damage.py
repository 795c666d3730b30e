import pytest

from schemas.exceptions import DamagedFileError
from schemas.ledger import Attempt, Commit, HeartbeatRecord, Publication, Retry, RunRecord, Shard
from tests.workers.tables.made_results import record
from workers.ledger.damage import ADVICE, NAMES, OR_RESTART, damaged, parse
from workers.printable import short_line
from workers.storage.store import Store

STORE = Store("/runs/today")
KINDS = (RunRecord, Attempt, HeartbeatRecord, Retry, Commit, Publication, Shard)


def reason(data: bytes, kind: type = Retry) -> str:
    with pytest.raises(DamagedFileError) as raised:
        parse(kind, STORE, "x.json", data)
    return raised.value.reason


def test_a_whole_record_is_read() -> None:
    assert parse(RunRecord, STORE, "run.json", record().to_json()) == record()


def test_one_sentence_names_the_file_what_is_wrong_what_it_means_and_the_way_on() -> None:
    with pytest.raises(DamagedFileError) as raised:
        parse(RunRecord, STORE, "run.json", b"")
    assert str(raised.value) == (
        "/runs/today/run.json is damaged: it is empty. Without it the run can be neither resumed nor "
        "retried. Restore it from a copy, or start over with --restart, which deletes the tables"
    )
    assert (raised.value.kind, raised.value.finding) == (
        "run",
        "/runs/today/run.json is damaged: it is empty",
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b" \n", "it is empty"),
        (b'{"number": 1', "it is no JSON (EOF while parsing an object at line 1 column 12)"),
        (b"\x00\xff\xfe", "it is no JSON (expected value at line 1 column 1)"),
        (b"[" * 100_000, "it is no JSON (recursion limit exceeded at line 1 column 202)"),
        (
            b'{"number": 1, "rows": []}',
            "it is no retry of this version (codes: Field required)",
        ),
        (
            b'{"number": 1, "codes": [], "rows": [[2, 5], [5, 6]]}',
            "it is no retry of this version (rows: Value error, ranges must be ascending, not empty, and "
            "must not touch)",
        ),
        (
            b'{"number": 1, "codes": [], "rows": 1, "raylabel": "0.9\\u001b[31m"}',
            "it is no retry of this version (rows: Input should be a valid array; written by raylabel "
            "0.9 [31m)",
        ),
        (b"[1]", "it is no retry of this version (Input should be an object)"),
    ],
)
def test_what_is_wrong_is_said_in_words_that_are_safe_to_print(data: bytes, words: str) -> None:
    assert reason(data) == words


def test_a_run_of_another_spec_or_with_an_id_that_is_a_path_is_none() -> None:
    values = record().model_dump(mode="json")
    changes: list[dict[str, object]] = [{"spec": {}}, {"spec": {"manifest": []}}, {"id": "../../home"}]
    for change in changes:
        with pytest.raises(ValueError, match=r"spec|id"):
            RunRecord.model_validate({**values, **change})


def test_each_kind_of_file_has_a_name_and_a_way_on() -> None:
    assert set(KINDS) <= set(NAMES) <= set(ADVICE)
    for kind, advice in ADVICE.items():
        error = damaged(kind, STORE, "x\x1b[31m", "it is empty")
        assert str(error) == f"/runs/today/x [31m is damaged: it is empty. {advice}"
    assert OR_RESTART in ADVICE[Shard]


def test_a_text_of_a_file_is_printed_on_one_line_and_cut() -> None:
    assert short_line("a\x1b[2J\n\u202eb") == "a [2J  b"
    assert short_line("x" * 200) == "x" * 157 + "..."
