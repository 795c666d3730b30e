"""What only long manifests show: more units than are handed out in one round."""

from pathlib import Path
from typing import Any

import pytest

from jobs.run import pipeline
from tests.integration.jobs_here import run_here, tables

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_here")]


def test_the_rows_are_the_same_in_one_round_or_in_several(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job: dict[str, Any] = {"manifest": str(photos), "units": {"rows": 1}, "detector": None}
    run_here(output=str(tmp_path / "one"), **job)
    monkeypatch.setattr(pipeline, "ROUND_BUNDLES", 3)
    monkeypatch.setattr(pipeline, "ROUND_BUNDLES_AN_ACTOR", 1)
    run_here(output=str(tmp_path / "several"), **job)
    one, several = (
        tables(tmp_path / name)["labels"].drop_columns(["processed_at", "run_id"])
        for name in ("one", "several")
    )
    assert one.equals(several)
    assert one["manifest_index"].to_pylist() == list(range(7))
