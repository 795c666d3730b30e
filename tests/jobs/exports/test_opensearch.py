import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.exports import opensearch
from jobs.exports.command import export_run
from jobs.exports.opensearch import field_names
from jobs.search.index import FACTS
from tests.jobs.exports.made_run import BOXES, CATEGORIES, LABELLED, MODELS, box_of, uri_of, write_run
from workers.tables.results import key_of


def documents(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """The id and the document of each pair of lines, as a bulk request has them."""
    found = []
    for file in sorted(folder.glob("bulk-*.ndjson")):
        content = file.read_bytes()
        assert content.endswith(b"\n")
        lines = content.decode().removesuffix("\n").split("\n")
        for action, document in zip(lines[::2], lines[1::2], strict=True):
            (index,) = json.loads(action).values()
            found.append((index["_id"], json.loads(document)))
    return found


def test_each_image_is_a_document_under_its_key(run: str, photos: Path, tmp_path: Path) -> None:
    export_run(run, "opensearch", tmp_path / "out")
    found = documents(tmp_path / "out")
    assert [document["manifest_index"] for _, document in found] == list(LABELLED)
    for index, (name, document) in zip(LABELLED, found, strict=True):
        assert document["uri"] == uri_of(photos, index)
        assert name == document["key"] == key_of(document["uri"])
        assert len(name.encode()) <= 512
        boxes = BOXES.get(index, [])
        assert document["object_count"] == len(boxes)
        assert document["classes"] == [CATEGORIES[category] for category, _, _ in boxes]
        assert document["counts"] == {CATEGORIES[category].replace(".", "_"): 1 for category, _, _ in boxes}
        assert list(document["scores"].values()) == pytest.approx(
            [box_of(index, number)[1] for number in range(len(boxes))], rel=1e-6
        )
        assert document["tags"] == ["indoors", "outdoors"][: index % 3]
        assert np.array_equal(
            np.array(document["embedding"], np.float32), np.array([index, 0.5, -1, 0.1], np.float32)
        )
        assert document["manifest"]["at"] == f"2026-01-{1 + index:02d}"


def test_fields_have_the_names_of_the_index_of_searches(run: str, tmp_path: Path) -> None:
    export_run(run, "opensearch", tmp_path / "out")
    (_, document), *_ = documents(tmp_path / "out")
    common = [name for name in document if name in ("manifest_index", "uri", *FACTS)]
    assert common == [
        *("manifest_index", "uri", "width", "height", "format", "byte_size", "exif_orientation", "image_id"),
        *("label", "score", "object_count"),
    ]
    assert (document["label"], document["score"], document["exif_orientation"]) == ("palace", 0.75, 1)
    assert "label_score" not in document


def test_every_field_of_a_document_is_in_the_mapping(run: str, tmp_path: Path) -> None:
    export_run(run, "opensearch", tmp_path / "out")
    body = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
    properties = body["mappings"]["properties"]
    assert properties["embedding"]["type"] == "knn_vector"
    assert properties["embedding"]["dimension"] == 4
    assert properties["tags"]["type"] == "keyword"
    assert body["settings"]["index"]["knn"] is True
    for _, document in documents(tmp_path / "out"):
        assert document.keys() <= properties.keys()
        for part in ("counts", "scores", "manifest"):
            assert document[part].keys() <= properties[part]["properties"].keys()
            assert not any("." in field for field in document[part])
    assert {name: kind["type"] for name, kind in properties["manifest"]["properties"].items()} == {
        "split": "keyword",
        "manifest_label": "long",
        "objects": "keyword",
        "at": "date",
    }


def test_requests_stay_under_the_limit(run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run, "opensearch", tmp_path / "one")
    monkeypatch.setattr(opensearch, "REQUEST_BYTES", 1500)
    export_run(run, "opensearch", tmp_path / "many")
    sizes = [file.stat().st_size for file in (tmp_path / "many").glob("bulk-*.ndjson")]
    assert len(sizes) > 2
    assert max(sizes) <= 1500
    assert documents(tmp_path / "many") == documents(tmp_path / "one")


def test_images_with_one_key_are_one_document_and_counted(tmp_path: Path) -> None:
    done = export_run(write_run(tmp_path, same={3: 2, 8: 2}), "opensearch", tmp_path / "out")
    assert done.notes[-1] == (
        "2 images have the key of another one (the same URI): of those with one key the last stays"
    )
    found = documents(tmp_path / "out")
    assert (len(found), len(dict(found))) == (8, 6)


def test_names_that_become_the_same_field_are_told_apart() -> None:
    assert field_names(["a.b", "a_b", ".", " "]) == {"a.b": "a_b", "a_b": "a_b_", ".": "_", " ": "__"}


def test_a_run_without_embeddings_has_no_vector(tmp_path: Path) -> None:
    run = write_run(tmp_path, {"classifier": MODELS["classifier"]})
    export_run(run, "opensearch", tmp_path / "out")
    body = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
    assert "knn" not in body["settings"]["index"]
    assert "embedding" not in body["mappings"]["properties"]
    assert {"embedding", "counts", "classes"}.isdisjoint(documents(tmp_path / "out")[0][1])
