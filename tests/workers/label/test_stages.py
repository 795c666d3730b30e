import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from schemas.errors import Stage
from schemas.exceptions import ModelError
from schemas.images import DecodedImage, Detections
from schemas.models import tables_of
from schemas.plan import Pass, Plan
from schemas.spec import DecodeSpec, FetchSpec, JobSpec
from schemas.spec_file import build_spec
from schemas.tasks import BoxChoice
from tests.patches import write_picture
from tests.poison import COLOURS
from workers.label.labeller import Labeller
from workers.label.profiler import Profiler
from workers.label.settings import LabelSettings, UnitRequest
from workers.label.stages import chosen, cut_out
from workers.label.supervise import DecodeUnits, LabelUnits
from workers.manifest.convert import write_parquet
from workers.manifest.manifest import Manifest
from workers.models.registry import load_all
from workers.process.forkserver import shared_fork_server

PATCHES: dict[str, Any] = {"detector": "tests.patches:patches", "classifier": None}
"""A job whose detector finds coloured patches."""

CLOSE = 1e-4
"""Of a score, of a number of a vector of length 1."""


def job_of(folder: Path, files: Sequence[Path], **sections: Any) -> LabelSettings:
    """The labelling part of a job over some files, all in one unit."""
    spec: JobSpec = build_spec({"manifest": "m", "output": "o", **sections}, "the test")
    loaded = load_all(spec.models)
    resolved = {name: model.resolved for name, model in loaded.items()}
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"uri": str(path)} for path in files]
    return LabelSettings(
        manifest=Manifest(write_parquet(rows, str(folder / "m"), ""), "uri", None, pa.schema([])),
        current=Pass(Plan(rows=len(rows), unit_rows=max(len(rows), 1), shard_units=1)),
        models=spec.models,
        fingerprints=tuple(model.fingerprint for model in resolved.values()),
        tables=tables_of(resolved),
        fetch=FetchSpec(),
        storage={},
        decode=DecodeSpec(),
        compute=spec.compute,
        device="cpu",
        runtime="torch",
        threads=1,
        memory_share=1,
        fork_server=shared_fork_server().address,
    )


def ignore_stage(_: Stage) -> None:
    """For those who do not ask how far it is."""


def results_of(job: LabelSettings) -> list[dict[str, Any]]:
    """The results of all rows of a job."""
    rows = list(range(job.current.plan.rows))
    results, _ = Labeller(job)(UnitRequest(0, rows), ignore_stage)
    assert results.schema == job.tables.results
    found: list[dict[str, Any]] = results.to_pylist()
    return found


def tags_by_object(row: Mapping[str, Any]) -> dict[int | None, list[tuple[int, float]]]:
    """The label ids and scores of an image's tags by its objects, None for the image itself."""
    tags = defaultdict(list)
    for tag in row["rows of tags"]:
        tags[tag["object_index"]].append((tag["label_id"], tag["score"]))
    return dict(tags)


@pytest.fixture(scope="module")
def demo(photos: Path) -> list[Path]:
    return sorted(photos.glob("*.[pj]*g"))


@pytest.fixture(scope="module")
def two_stages(demo: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The demo photos: each box of them tagged and embedded by the built-in classifier's network."""
    job = job_of(
        tmp_path_factory.mktemp("stages"),
        demo,
        detector={"model": "nanodet_g", "score_threshold": 0.3},
        taggers={
            "scene": "efficientnet_lite0",
            "what": {"model": "efficientnet_lite0", "on": "boxes", "margin": 0.1},
        },
        embedder={"model": "efficientnet_lite0", "on": "boxes", "margin": 0.1},
    )
    return results_of(job)


def cut_by_pillow(row: Mapping[str, Any], photo: Path, folder: Path, margin: float) -> list[Path]:
    """Each box of an image grown, clipped, cut out and saved: written down anew, with Pillow's `crop`."""
    files = []
    with Image.open(photo) as image:
        for number, box in enumerate(row["rows of boxes"]):
            across, down = margin * (box["x2"] - box["x1"]), margin * (box["y2"] - box["y1"])
            area = (
                max(0, math.floor(box["x1"] - across)),
                max(0, math.floor(box["y1"] - down)),
                min(image.width, math.ceil(box["x2"] + across)),
                min(image.height, math.ceil(box["y2"] + down)),
            )
            files.append(folder / f"{photo.stem}-{number}.png")
            image.convert("RGB").crop(area).save(files[-1])
    return files


def test_an_object_gets_the_tags_and_the_vector_that_its_crop_gets_as_a_file_of_its_own(
    two_stages: list[dict[str, Any]], demo: list[Path], tmp_path: Path
) -> None:
    files = [
        file
        for row, photo in zip(two_stages, demo, strict=True)
        for file in cut_by_pillow(row, photo, tmp_path, 0.1)
    ]
    assert len(files) >= 5
    alone = results_of(
        job_of(
            tmp_path / "alone",
            files,
            classifier=None,
            detector=None,
            taggers={"what": "efficientnet_lite0"},
            embedder="efficientnet_lite0",
        )
    )
    found = [one for row in two_stages for number, one in tags_by_object(row).items() if number is not None]
    vectors = [one["embedding"] for row in two_stages for one in row["rows of object_embeddings"]]
    for own, vector, row in zip(found, vectors, alone, strict=True):
        (expected,) = tags_by_object(row).values()
        assert [label_id for label_id, _ in own] == [label_id for label_id, _ in expected]
        assert [score for _, score in own] == pytest.approx([score for _, score in expected], abs=CLOSE)
        (embedding,) = row["rows of embeddings"]
        np.testing.assert_allclose(vector, embedding["embedding"], atol=CLOSE)


def test_tags_say_whose_they_are_and_each_object_has_its_own(two_stages: list[dict[str, Any]]) -> None:
    for row in two_stages:
        objects = list(range(row["object_count"]))
        whose = [(tag["tagger"], tag["object_index"]) for tag in row["rows of tags"]]
        assert whose == [("scene", None)] * 5 + [("what", number) for number in objects for _ in range(5)]
        assert [one["object_index"] for one in row["rows of object_embeddings"]] == objects
        assert "rows of embeddings" not in row


def test_tags_of_objects_are_the_same_whatever_the_batch(
    two_stages: list[dict[str, Any]], demo: list[Path], tmp_path: Path
) -> None:
    what = {"model": "efficientnet_lite0", "on": "boxes", "margin": 0.1}
    detector = {"model": "nanodet_g", "score_threshold": 0.3}
    compute = {"batch_size": 5}
    job = job_of(tmp_path, demo, classifier=None, detector=detector, taggers={"what": what}, compute=compute)
    for row, other in zip(results_of(job), two_stages, strict=True):
        own, others = tags_by_object(row), tags_by_object(other)
        others.pop(None)
        assert own.keys() == others.keys()
        for number, tags in own.items():
            assert [label_id for label_id, _ in tags] == [label_id for label_id, _ in others[number]]
            scores = [score for _, score in others[number]]
            assert [score for _, score in tags] == pytest.approx(scores, abs=CLOSE)


PATCHED = {"white": (0, 0, 8, 8), "blue": (10, 10, 40, 30), "yellow": (50, 5, 90, 60)}
"""In the detector's order: blue, white, yellow."""


def test_only_boxes_of_the_classes_that_are_named_are_sent_and_of_these_the_best(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", PATCHED)
    picked = {"two": ["white", "blue"], "all": None, "one": ["yellow", "white"]}
    taggers = {
        name: {"model": "efficientnet_lite0", "on": "boxes", "classes": classes, "top_k": 1}
        for name, classes in picked.items()
    }
    taggers["one"]["max_boxes"] = 1
    (row,) = results_of(job_of(tmp_path, [tmp_path / "p.png"], **PATCHES, taggers=taggers))
    assert [box["class_name"] for box in row["rows of boxes"]] == ["blue", "white", "yellow"]
    whose = [(tag["tagger"], tag["object_index"]) for tag in row["rows of tags"]]
    assert sorted(whose) == [("all", 0), ("all", 1), ("all", 2), ("one", 1), ("two", 0), ("two", 1)]


def test_classes_are_those_of_the_detectors_class_map(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", PATCHED)
    (tmp_path / "map.yaml").write_text("blue: cold\nwhite: cold\nyellow: warm\n'*':\n")
    detector = {"model": "tests.patches:patches", "class_map": str(tmp_path / "map.yaml")}
    tagger = {"model": "efficientnet_lite0", "on": "boxes", "classes": ["cold"], "top_k": 1}
    sections: dict[str, Any] = {"classifier": None, "detector": detector, "taggers": {"a": tagger}}
    (row,) = results_of(job_of(tmp_path, [tmp_path / "p.png"], **sections))
    assert [tag["object_index"] for tag in row["rows of tags"]] == [0, 1]
    sections["taggers"]["a"]["classes"] = ["cald"]
    with pytest.raises(
        ModelError,
        match=r"taggers\.a\.classes: tests\.patches:patches has no class 'cald'; did you mean cold\?",
    ):
        job_of(tmp_path, [], **sections)
    sections["taggers"]["a"]["classes"] = ["blue"]
    with pytest.raises(ModelError, match=r"has no class 'blue'; by the class map it is 'cold'"):
        job_of(tmp_path, [], **sections)


def test_an_image_without_objects_has_no_tags_of_them_and_is_labelled(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", {})
    tagger = {"model": "efficientnet_lite0", "on": "boxes"}
    (row,) = results_of(job_of(tmp_path, [tmp_path / "p.png"], **PATCHES, taggers={"a": tagger}))
    assert (row["error"], row["object_count"], row["rows of tags"]) == (None, 0, [])


def test_an_object_that_is_a_strip_has_no_tags_and_its_image_is_labelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_picture(tmp_path / "p.png", {"blue": (0, 0, 402, 2), "white": (0, 9, 402, 10)}, size=(500, 20))
    tagger = {"model": "efficientnet_lite0", "on": "boxes", "top_k": 1}
    job = job_of(tmp_path, [tmp_path / "p.png"], **PATCHES, taggers={"a": tagger})
    with caplog.at_level("INFO", "workers.label.stages"):
        (row,) = results_of(job)
    assert (row["error"], row["object_count"]) == (None, 2)
    assert [tag["object_index"] for tag in row["rows of tags"]] == []
    said = "2 objects are over 200 times longer than wide, or wider: not sent to taggers.a"
    assert [record.getMessage() for record in caplog.records] == [said]


BAD = {"model": "tests.poison:poisoned", "on": "boxes"}
"""A tagger that some colours are bad for."""


def test_an_object_that_a_model_fails_on_costs_its_own_image_only(tmp_path: Path) -> None:
    for name, colour in {"a": "blue", "b": "green", "c": "yellow", "d": "blue"}.items():
        write_picture(tmp_path / f"{name}.png", {"blue": (1, 1, 20, 20), colour: (30, 30, 60, 60)})
    files = sorted(tmp_path.glob("?.png"))
    job = job_of(tmp_path, files, **PATCHES, taggers={"bad": BAD}, compute={"batch_size": 4})
    rows = results_of(job)
    errors = [row["error"] and (row["error"]["stage"], row["error"]["code"]) for row in rows]
    assert errors == [None, ("tag", "MODEL_ERROR"), ("tag", "NON_FINITE"), None]
    assert rows[1]["error"]["message"].startswith("object 1, 30x30 pixels: RuntimeError: I do not like green")
    for row in (rows[1], rows[2]):
        assert (row["rows of tags"], row["rows of boxes"], row["object_count"]) == (None, None, None)
    assert [tag["label"] for tag in rows[0]["rows of tags"]] == ["blue", "other"]


def test_an_object_that_crashes_its_model_or_takes_too_long_is_found_and_the_rest_is_labelled(
    tmp_path: Path,
) -> None:
    colours = ["blue", "red", "blue", "black", "blue"]
    for name, colour in enumerate(colours):
        write_picture(tmp_path / f"{name}.png", {"blue": (1, 1, 20, 20), colour: (30, 30, 60, 60)})
    compute = {"batch_size": 1, "timeout_s": 0.5}
    job = job_of(tmp_path, sorted(tmp_path.glob("?.png")), **PATCHES, taggers={"bad": BAD}, compute=compute)
    with closing(LabelUnits(job)) as units:
        rows = units(0).to_pylist()
    errors = [row["error"] and (row["error"]["stage"], row["error"]["code"]) for row in rows]
    assert errors == [None, ("tag", "WORKER_CRASHED"), None, ("tag", "TIMEOUT"), None]
    assert [len(row["rows of tags"] or ()) for row in rows] == [2, 0, 2, 0, 2]


def test_objects_are_cut_out_of_images_that_another_process_decoded(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", PATCHED)
    tagger = {"model": "efficientnet_lite0", "on": "boxes", "margin": 0.2}
    job = job_of(tmp_path, [tmp_path / "p.png"], **PATCHES, taggers={"a": tagger})
    (here,) = results_of(job)
    with closing(DecodeUnits(job)) as decode, closing(LabelUnits(job)) as label:
        (there,) = label(0, decoded=decode(0)).to_pylist()
    assert {**there, "processed_at": None} == {**here, "processed_at": None}
    assert [tag["object_index"] for tag in here["rows of tags"]] == [0] * 5 + [1] * 5 + [2] * 5


def test_a_network_is_in_memory_once_whether_it_gets_images_or_boxes(tmp_path: Path) -> None:
    on_boxes = {"model": "efficientnet_lite0", "on": "boxes"}
    job = job_of(
        tmp_path,
        [],
        classifier="efficientnet_lite0",
        detector="tests.patches:patches",
        taggers={"a": on_boxes, "b": {**on_boxes, "margin": 0.5}, "c": "efficientnet_lite0"},
        embedder=on_boxes,
    )
    stages = Labeller(job)._stages
    whole = {runner.name: runner for runner in stages._whole}
    of_boxes = {runner.name: runner for runner, _ in stages._of_boxes}
    assert [*whole] == ["classifier + taggers.c", "detector"]
    assert [*of_boxes] == ["embedder + taggers.a", "taggers.b"]
    modules = {id(runner._module) for runner in (whole["classifier + taggers.c"], *of_boxes.values())}
    assert len(modules) == 1


def test_a_plan_measures_the_second_stage_by_itself(tmp_path: Path) -> None:
    write_picture(tmp_path / "p.png", {"blue": (10, 10, 40, 30), "yellow": (50, 5, 90, 60)})
    job = job_of(tmp_path, [tmp_path / "p.png"], **PATCHES, taggers={"bad": BAD})
    profiler = Profiler(job)
    profiler.fetch(job.manifest.read([0]).locations)
    probed = profiler.profile(ignore_stage)
    assert probed.models.keys() == {"detector", "taggers.bad"}
    assert probed.failed == {"NON_FINITE": 1}  # of yellow


def test_a_model_of_boxes_is_tried_where_there_are_none(tmp_path: Path) -> None:
    def wrong(name: str, tagger: dict[str, Any]) -> str:
        job = job_of(tmp_path / name, [tmp_path / "green.png"], **PATCHES, taggers={"bad": tagger})
        profiler = Profiler(job)
        profiler.fetch(job.manifest.read([0]).locations)
        probed = profiler.profile(ignore_stage)
        assert probed.failed == {}
        return probed.wrong

    Image.new("RGB", (40, 30), COLOURS["green"]).save(tmp_path / "green.png")
    assert "I do not like green" in wrong("none", {**BAD, "classes": ["blue"]})
    assert not wrong("good", {"model": "efficientnet_lite0", "on": "boxes", "classes": ["blue"]})


def fingerprint(**keys: Any) -> str:
    """Of a tagger with some keys, in a job with the detector that `detector` says."""
    detector = keys.pop("detector", "nanodet_g")
    tagger = {"model": "efficientnet_lite0", **keys}
    spec = build_spec({"manifest": "m", "output": "o", "detector": detector, "taggers": {"a": tagger}}, "")
    return load_all(spec.models)["taggers.a"].resolved.fingerprint


def test_a_tagger_is_known_by_the_boxes_that_it_gets_and_by_what_finds_them() -> None:
    whole = fingerprint()
    boxes = fingerprint(on="boxes", classes=["dog", "cat"])
    others = [
        fingerprint(on="boxes"),
        fingerprint(on="boxes", classes=["dog"]),
        fingerprint(on="boxes", classes=["dog", "cat"], margin=0.1),
        fingerprint(on="boxes", classes=["dog", "cat"], max_boxes=3),
        fingerprint(on="boxes", classes=["dog", "cat"], detector={"score_threshold": 0.5}),
    ]
    assert len({whole, boxes, *others}) == 7
    assert fingerprint(on="boxes", classes=["cat", "dog", "cat"]) == boxes
    assert fingerprint(detector={"score_threshold": 0.5}) == whole  # which gets the image, whatever is in it


def image_of(width: int, height: int) -> DecodedImage:
    pixels = np.arange(width * height * 3, dtype=np.uint32).astype(np.uint8).reshape(height, width, 3)
    return DecodedImage(pixels, "PNG", 1, "RGB", 1)


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
    st.floats(0, 10),
)
def test_a_crop_has_every_pixel_of_its_box_and_its_margin_and_is_within_the_image(
    width: int, height: int, shares: list[float], margin: float
) -> None:
    (x1, x2), (y1, y2) = (
        sorted(np.float32(share * side) for share in pair)
        for pair, side in ((shares[:2], width), (shares[2:], height))
    )
    if x1 == x2 or y1 == y2:
        return
    image = image_of(width, height)
    crop = cut_out(image, [float(x1), float(y1), float(x2), float(y2)], margin)
    across, down = margin * (float(x2) - float(x1)), margin * (float(y2) - float(y1))
    columns = [x for x in range(width) if x + 1 > x1 - across and x < x2 + across]
    rows = [y for y in range(height) if y + 1 > y1 - down and y < y2 + down]
    np.testing.assert_array_equal(crop.pixels, image.pixels[np.ix_(rows, columns)])
    assert crop.width >= 1
    assert crop.height >= 1
    assert np.shares_memory(crop.pixels, image.pixels)


def test_boxes_are_chosen_by_the_names_that_the_tables_have_for_their_classes() -> None:
    none = np.zeros((4, 4), np.float32)
    found = Detections(none, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([2, 0, 1, 0], np.int32))
    names = ("cat", "dog", None)
    assert chosen(found, names, BoxChoice()) == [0, 1, 2, 3]
    assert chosen(found, names, BoxChoice(("cat",))) == [1, 3]
    assert chosen(found, names, BoxChoice(("cat", "dog"), most=2)) == [1, 2]
