import contextlib
import io
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from jobs.exports.command import export_run
from tests.jobs.exports.made_run import BOXES, CATEGORIES, LABELLED, box_of


def test_pycocotools_loads_the_results_into_their_images(run: str, tmp_path: Path) -> None:
    export_run(run, "coco-results", tmp_path / "out")
    with contextlib.redirect_stdout(io.StringIO()):
        results = COCO(str(tmp_path / "out" / "image_info.json")).loadRes(
            str(tmp_path / "out" / "results.json")
        )
    assert results.getImgIds() == [index + 1 for index in LABELLED]
    assert len(results.anns) == 8
    for index, boxes in BOXES.items():
        found = results.imgToAnns[index + 1]
        for number, ((category, _, _), result) in enumerate(zip(boxes, found, strict=True)):
            _, score, (x1, y1, x2, y2) = box_of(index, number)
            assert results.cats[result["category_id"]]["name"] == CATEGORIES[category]
            assert result["bbox"] == [x1, y1, x2 - x1, y2 - y1]
            assert result["score"] == pytest.approx(score, rel=1e-6)
