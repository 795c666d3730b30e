import shlex
from datetime import date
from pathlib import Path
from typing import get_args

import pytest
import yaml

from jobs.prepare.begun import spec_of
from schemas.exceptions import SpecError
from schemas.spec import Fact, FetchSpec, JobSpec
from schemas.spec_file import build_spec, parse_yaml, read_spec
from schemas.tables import FACTS_OF
from schemas.tasks import BoxChoice
from workers.places import with_absolute_places

SMALLEST = """
manifest: photos.parquet
output: runs/today
"""

ISSUE = """
manifest: photos.parquet
output: runs/today
classifier: {model: efficientnet_lite0, top_k: 5}
detector: {model: nanodet_g, score_threshold: 0.4}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "job.yaml"
    path.write_text(text)
    return str(path)


def test_manifest_and_output_are_enough_and_the_defaults_are_the_built_in_models(tmp_path: Path) -> None:
    smallest = read_spec(write(tmp_path, SMALLEST), {})
    assert smallest == read_spec(write(tmp_path, ISSUE), {})
    assert smallest.model_dump() == {
        "manifest": {
            "uri": "photos.parquet",
            "format": "auto",
            "uri_column": "uri",
            "image_column": "auto",
            "image_id_column": None,
            "base": None,
        },
        "output": "runs/today",
        "classifier": {
            "model": "efficientnet_lite0",
            "weights": None,
            "sha256": None,
            "state": None,
            "options": {},
            "categories": None,
            "input": None,
            "top_k": 5,
            "labels": None,
            "prompt": None,
            "text_model": None,
            "tokenizer": None,
            "class_map": None,
            "score_type": None,
            "score_threshold": None,
            "class_thresholds": {},
            "logit_scale": None,
            "logit_bias": None,
        },
        "detector": {
            "model": "nanodet_g",
            "weights": None,
            "sha256": None,
            "state": None,
            "options": {},
            "categories": None,
            "input": None,
            "labels": None,
            "prompt": None,
            "class_map": None,
            "layout": None,
            "score_threshold": 0.4,
            "class_thresholds": {},
            "nms_iou": None,
            "max_boxes": None,
            "tiles": None,
        },
        "embedder": None,
        "taggers": {},
        "facts": [],
        "fetch": {
            "concurrency": "auto",
            "attempts": 4,
            "timeout_s": 30,
            "throttle_timeout_s": 300,
            "rate": None,
            "max_bytes": 268_435_456,
            "headers": {},
        },
        "decode": {"max_pixels": 120_000_000, "timeout_s": 60},
        "compute": {
            "device": "auto",
            "actors": "auto",
            "cpus": "auto",
            "resources": {},
            "decoders": 0,
            "batch_size": "auto",
            "precision": "auto",
            "runtime": "auto",
            "timeout_s": 120,
        },
        "units": {"rows": "auto", "shard_rows": "auto"},
        "storage": {},
        "max_failed": None,
    }


def test_the_command_line_needs_no_file_and_lies_over_one(tmp_path: Path) -> None:
    alone = read_spec(None, {"manifest.uri": "a.csv", "output": "out"})
    assert (alone.manifest.uri, alone.output) == ("a.csv", "out")
    over = read_spec(
        write(tmp_path, "manifest: a.csv\noutput: out\ndetector: fcos_resnet50_fpn"),
        {
            "manifest.uri_column": "url",
            "detector.score_threshold": 0.2,
            "classifier": None,
            "output": "other",
        },
    )
    assert over.manifest.model_dump(exclude_defaults=True) == {"uri": "a.csv", "uri_column": "url"}
    assert over.detector is not None
    assert over.detector.model_dump(exclude_defaults=True) == {
        "model": "fcos_resnet50_fpn",
        "score_threshold": 0.2,
    }
    assert over.classifier is None
    assert over.output == "other"


def test_another_model_is_taken_without_what_belongs_to_the_one_before(tmp_path: Path) -> None:
    section = "{model: 'mine:build', weights: a.pt, options: {width: 2}, categories: [cat], max_boxes: 9}"
    path = write(tmp_path, SMALLEST + f"detector: {section}")
    for overrides, expected in (
        ({"detector.model": "nanodet_g"}, {"model": "nanodet_g", "max_boxes": 9}),
        (
            {"detector.model": "fcos_resnet50_fpn", "detector.weights": "b.pt"},
            {"model": "fcos_resnet50_fpn", "weights": "b.pt", "max_boxes": 9},
        ),
        ({"detector.model": "mine:build"}, yaml.safe_load(section)),
        (
            {"detector": {"max_boxes": 8}, "detector.model": "nanodet_g"},
            {"model": "nanodet_g", "max_boxes": 8},
        ),
        (
            {"detector.model": "nanodet_g", "detector": {"max_boxes": 8}},
            {"model": "nanodet_g", "max_boxes": 8},
        ),
        ({"detector.max_boxes": 8}, {**yaml.safe_load(section), "max_boxes": 8}),
    ):
        detector = read_spec(path, overrides).detector
        assert detector is not None
        assert detector.model_dump(exclude_unset=True) == expected


@pytest.mark.parametrize(
    ("section", "model"),
    [
        ("{weights: my.pt}", "nanodet_g"),
        ("{model: torchvision/ssd300_vgg16, weights: my.pt}", "ssd300_vgg16"),
    ],
)
def test_the_same_model_keeps_its_weights_however_it_is_named(
    section: str, model: str, tmp_path: Path
) -> None:
    path = write(tmp_path, SMALLEST + f"detector: {section}")
    detector = read_spec(path, {"detector.model": model}).detector
    assert detector is not None
    assert (detector.model, detector.weights) == (model, "my.pt")


def test_models_are_those_of_all_sections_in_the_order_in_which_an_image_passes_them(tmp_path: Path) -> None:
    text = "embedder: resnet50\ntaggers: {scene: resnet50, nsfw: {model: 'mine:build', score_threshold: 0.2}}"
    models = read_spec(write(tmp_path, SMALLEST + text), {"detector": None}).models
    assert {name: (model.task.name, model.model) for name, model in models.items()} == {
        "classifier": ("classifier", "efficientnet_lite0"),
        "embedder": ("embedder", "resnet50"),
        "taggers.scene": ("tagger", "resnet50"),
        "taggers.nsfw": ("tagger", "mine:build"),
    }
    assert [model.tables for model in models.values()] == [(), ("embeddings",), ("tags",), ("tags",)]
    assert [model.what_is_kept(1000) for model in models.values()] == [
        "top 5",
        "length 1",
        "top 5",
        "score above 0.2",
    ]


def test_keys_of_a_tagger_are_set_by_its_name_also_where_it_is_written_short(tmp_path: Path) -> None:
    path = write(tmp_path, SMALLEST + "taggers: {scene: resnet50, other: {model: resnet18, weights: a.pt}}")
    overrides = {"taggers.scene.top_k": 3, "taggers.other.model": "resnet34", "taggers.new.model": "vgg11"}
    assert list(read_spec(path, {"taggers.scene": None}).taggers) == ["other"]
    taggers = read_spec(path, overrides).taggers
    assert {name: tagger.model_dump(exclude_unset=True) for name, tagger in taggers.items()} == {
        "scene": {"model": "resnet50", "top_k": 3},
        "other": {"model": "resnet34"},
        "new": {"model": "vgg11"},
    }


def test_on_is_a_key_as_it_is_written_though_yaml_takes_it_for_true(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "manifest: m.csv\noutput: out\n"
        "taggers: {species: {model: resnet50, on: boxes, classes: [bird, bird], margin: 1}}\n"
        "embedder:\n  model: resnet50\n  on: boxes\n"
    )
    spec = read_spec(str(path), {"embedder.classes": "person", "taggers.species.max_boxes": 2})
    assert spec.taggers["species"].boxes == BoxChoice(("bird",), 1.0, 2)
    assert spec.embedder
    assert spec.embedder.boxes == BoxChoice(("person",))
    assert (spec.embedder.tables, spec.taggers["species"].tables) == (("object_embeddings",), ("tags",))
    assert spec.taggers["species"].what_is_kept(3) == "top 3; boxes of bird, margin 1, at most 2"
    assert parse_yaml("base: &base {on: 1, no: on}\nother: {<<: *base, yes: off}") == {
        "base": {"on": 1, "no": True},
        "other": {"on": 1, "no": True, "yes": False},
    }
    with pytest.raises(ValueError, match="the key 'on' is there twice"):
        parse_yaml("{on: 1, on: 2}")


def test_a_classifier_with_a_threshold_has_tags() -> None:
    spec = build_spec({"manifest": "a", "output": "b", "classifier": {"score_threshold": 0.5}}, "a test")
    assert spec.models["classifier"].tables == ("tags",)
    assert spec.models["classifier"].what_is_kept(3) == "top 3, tags: score above 0.5"


def of_tiles(tiles: object) -> JobSpec:
    return build_spec({"manifest": "a", "output": "b", "detector": {"tiles": tiles}}, "a test")


def test_tiles_have_a_size_and_an_overlap() -> None:
    for tiles, kept in (
        ({}, "score above 0.4, tiles of 1024 pixels, overlap 0.2"),
        ({"size": 640, "overlap": 0.25}, "score above 0.4, tiles of 640 pixels, overlap 0.25"),
        ({"size": 512, "overlap": 0}, "score above 0.4, tiles of 512 pixels, overlap 0"),
        (None, "score above 0.4"),
    ):
        assert of_tiles(tiles).models["detector"].what_is_kept(80) == kept


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        (
            1024,
            ": found 1024; allowed: keys and values, as in {size: 1024, overlap: 0.2}; or null for no tiles",
        ),
        (
            True,
            ": found true; allowed: keys and values, as in {size: 1024, overlap: 0.2}; or null for no tiles",
        ),
        ({"size": 0}, ".size: found 0; allowed: at least 64"),
        ({"size": 100_000}, ".size: found 100000; allowed: at most 16384"),
        ({"size": "1024"}, ".size: found '1024'; allowed: a whole number"),
        ({"size": [1024, 512]}, ".size: found [1024, 512]; allowed: a whole number"),
        ({"overlap": 0.9}, ".overlap: found 0.9; allowed: at most 0.5"),
        ({"overlap": 20}, ".overlap: found 20; allowed: at most 0.5"),
        ({"overlap": -0.1}, ".overlap: found -0.1; allowed: at least 0"),
        ({"sise": 3}, ".sise: unknown key; allowed: size, overlap (did you mean size?)"),
    ],
    ids=str,
)
def test_tiles_that_cannot_be_are_refused_with_what_is_allowed(tiles: object, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        of_tiles(tiles)
    assert str(refused.value).splitlines()[1:] == [f"  detector.tiles{message}"]


@pytest.mark.parametrize(
    ("taggers", "found"),
    [
        ("./clip/", "'./clip/'"),
        ([{"model": "a"}], "[{model: 'a'}]"),
        ({"model": "a"}, "model where names of taggers are, as keys of a tagger"),
        (
            {"scene": None, "model": "a", "labels": ["b"]},
            "model, labels where names of taggers are, as keys of a tagger",
        ),
    ],
    ids=str,
)
def test_a_tagger_without_a_name_above_its_keys_is_told_where_they_belong(
    taggers: object, found: str
) -> None:
    with pytest.raises(SpecError) as refused:
        build_spec({"manifest": "a", "output": "b", "taggers": taggers}, "a test")
    allowed = "`taggers: {NAME: {model: …}}`, with a name of your own for each, and its keys below that"
    assert str(refused.value).splitlines()[1:] == [f"  taggers: found {found}; allowed: {allowed}"]


def test_tiles_belong_to_a_detector() -> None:
    values = {"manifest": "a", "output": "b", "classifier": {"tiles": {}}}
    with pytest.raises(SpecError, match=r"classifier\.tiles: unknown key; .*did you mean detector\.tiles"):
        build_spec(values, "a test")


def test_what_is_left_out_has_no_settings() -> None:
    overrides = {"manifest": "a", "output": "b", "detector": None, "detector.max_boxes": 3}
    with pytest.raises(SpecError, match=r"^detector: found null, and detector\.max_boxes beside it"):
        read_spec(None, overrides)


@pytest.mark.parametrize("value", ["!!bool x", '!!int ""', "!!float _", "!!timestamp x"])
def test_a_value_that_is_none_of_its_yaml_type_is_refused(value: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"is not YAML in UTF-8: .* is none of its type, in line 1"):
        read_spec(write(tmp_path, f"output: {value}"), {})


def test_every_fault_is_named_with_its_path_the_value_found_and_what_is_allowed(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        manifest: {uri: x.csv, colum: 3}
        output: 7
        classifer: {model: x}
        classifier: {top_k: five, sha256: abc}
        detector: {score_threshold: 1.4, class_thresholds: {person: 3}, model: [a]}
        units: {rows: 0}
        compute: {actors: none, device: gpu}
        max_failed: 1.5
        """,
    )
    with pytest.raises(SpecError) as raised:
        read_spec(path, {})
    assert str(raised.value).splitlines() == [
        f"{path} is not a job that can run:",
        "  manifest.colum: unknown key; allowed: uri, format, uri_column, image_column, image_id_column, "
        "base (did you mean uri_column?)",
        "  output: found 7; allowed: text (in quotes)",
        "  classifier.sha256: found 'abc'; allowed: 64 lower-case hexadecimal digits",
        "  classifier.top_k: found 'five'; allowed: a whole number",
        "  detector.model: found ['a']; allowed: text",
        "  detector.score_threshold: found 1.4; allowed: at most 1",
        "  detector.class_thresholds.person: found 3; allowed: at most 1",
        "  compute.device: found 'gpu'; allowed: 'auto', 'cpu' or 'cuda'",
        "  compute.actors: found 'none'; allowed: 'auto' or a whole number or keys and values",
        "  units.rows: found 0; allowed: 'auto' or at least 1",
        "  max_failed: found 1.5; allowed: a whole number or below 1",
        "  classifer: unknown key; allowed: manifest, output, classifier, detector, embedder, taggers, "
        "facts, fetch, decode, compute, units, storage, max_failed (did you mean classifier?)",
    ]


def test_a_tagger_outside_of_taggers_is_told_where_it_belongs(tmp_path: Path) -> None:
    path = write(tmp_path, SMALLEST + "tagger: {model: ./siglip2/, labels: [beach, forest]}")
    with pytest.raises(SpecError, match=r"did you mean `taggers: \{NAME: …\}`, with a name of your own for "):
        read_spec(path, {})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            "model: ./clip/, labels: [a, b], text_model: t.onnx",
            "text_model: found for ./clip/; allowed: beside",
        ),
        (
            "model: v.onnx, labels: [a, b], text_model: t.pt",
            "text_model: found t.pt; allowed: the path or URL",
        ),
        ("model: v.onnx, labels: [a, b], tokenizer: ./t/", "tokenizer: found without text_model; allowed: "),
        ("model: v.onnx, text_model: t.onnx", "text_model: found without labels; allowed: beside `labels`"),
        ("model: ./clip/, logit_scale: 100", "logit_scale: found without labels; allowed: beside `labels`"),
        ("model: ./clip/, labels: [a, b], logit_scale: 0", "logit_scale: found 0; allowed: above 0"),
    ],
)
def test_keys_of_two_onnx_files_are_refused_where_they_mean_nothing(
    tmp_path: Path, keys: str, said: str
) -> None:
    path = write(tmp_path, SMALLEST + f"taggers: {{scene: {{{keys}}}}}")
    with pytest.raises(SpecError) as refused:
        read_spec(path, {})
    assert f"  taggers.scene.{said}" in str(refused.value)


def test_the_places_of_two_onnx_files_are_absolute_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, SMALLEST + "embedder: {model: v.onnx, text_model: t.onnx, tokenizer: clip}")
    embedder = with_absolute_places(read_spec(path, {})).embedder
    places = (embedder.model, embedder.text_model, embedder.tokenizer)
    assert places == tuple(str(tmp_path / name) for name in ("v.onnx", "t.onnx", "clip"))
    other = read_spec(path, {"embedder.model": "other.onnx"}).embedder
    assert (other.text_model, other.tokenizer) == (None, None)


def with_taggers(taggers: object) -> dict[str, object]:
    return {"manifest": "a", "output": "b", "taggers": taggers}


def with_headers(headers: object) -> dict[str, object]:
    return {"manifest": "a", "output": "b", "fetch": {"headers": headers}}


def stored(url: str, **settings: object) -> dict[str, object]:
    """A job with storage options for one URL."""
    return {"manifest": "a", "output": "b", "storage": {url: settings}}


SIDES = "a whole number of pixels from 1 to 8192, or two of them in a list, [height, width]"
MEAN = "a number, or three of them in a list, one for each channel"
STD = "a number above 0, or three of them in a list, one for each channel"
SCALE = "the number, 1 or more, that pixels of 0 to 255 are divided by: 255 makes them 0 to 1, 1 keeps them"
CLASS_MAP = (
    "the path or URL of a file that ends in .yaml, .yml or .csv and has the names, in YAML a line "
    "`car: vehicle` for each; or wordnet, for ImageNet's classes"
)


@pytest.mark.parametrize(
    ("key", "value", "found", "allowed"),
    [
        ("input.mean", [1, 2], "[1, 2]", MEAN),
        ("input.mean", ["a", 2, 3], "['a', 2, 3]", MEAN),
        ("input.mean", True, "true", MEAN),
        ("input.mean", {"red": 1}, "{red: 1}", MEAN),
        ("input.mean", [1, float("nan"), 2], "[1, nan, 2]", MEAN),
        ("input.std", [0, 1, 1], "[0, 1, 1]", STD),
        ("input.std", -1, "-1", STD),
        ("input.size", [1, 2, 3], "[1, 2, 3]", SIDES),
        ("input.size", [1.5, 3], "[1.5, 3]", SIDES),
        ("input.size", 0, "0", SIDES),
        ("input.crop", "224", "'224'", SIDES),
        ("input.scale", 0.00392, "0.00392", SCALE),
        ("input.scale", [255], "[255]", SCALE),
        ("class_map", {"car": "vehicle"}, "{car: 'vehicle'}", CLASS_MAP),
        ("class_map", ["car"], "['car']", CLASS_MAP),
        ("class_map", "", "''", CLASS_MAP),
    ],
)
def test_a_value_that_may_be_of_several_kinds_is_refused_in_one_sentence(
    key: str, value: object, found: str, allowed: str
) -> None:
    section, _, name = key.rpartition(".")
    settings = {section: {name: value}} if section else {name: value}
    with pytest.raises(SpecError) as raised:
        build_spec({"manifest": "a", "output": "b", "classifier": {"model": "a.onnx", **settings}}, "it")
    assert str(raised.value).splitlines()[1:] == [f"  classifier.{key}: found {found}; allowed: {allowed}"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"manifest": "a"}, "output: missing, and it has no default; set it in a job spec or with --output"),
        (
            {"output": "b"},
            "manifest: missing, and it has no default; set it in a job spec or with --manifest",
        ),
        ({"manifest": [], "output": "b"}, "manifest.uri: found []; allowed: something that is not empty"),
        ({"manifest": "a", "output": ""}, "output: found ''; allowed: text that is not empty"),
        (
            {"manifest": "a", "output": "b", "classifier": None, "detector": None},
            "found no model; a job needs at least one of classifier, detector, embedder and taggers",
        ),
        (
            with_taggers({"scene": 3}),
            "taggers.scene: found 3; allowed: text or keys and values",
        ),
        (
            with_taggers({"scene": {"top_k": 3}}),
            "taggers.scene.model: missing, and it has no default",
        ),
        (
            with_taggers({"scene": {"model": "a", "treshold": 3}}),
            "taggers.scene.treshold: unknown key; allowed: model, weights, sha256, state, options, "
            "categories, input, on, classes, margin, max_boxes, labels, prompt, text_model, tokenizer, "
            "class_map, score_type, score_threshold, class_thresholds, logit_scale, logit_bias, "
            "top_k (did you mean score_threshold?)",
        ),
        (
            with_taggers({"scene": {"model": "a", "on": "boxes"}}) | {"detector": None},
            "taggers.scene.on: found 'boxes' in a job without a detector; allowed: a `detector:`, whose "
            "boxes this model gets, or `on: image`",
        ),
        (
            with_taggers({"scene": {"model": "a", "classes": ["bird"]}}),
            "taggers.scene.classes: found ['bird'] without `on: boxes`; allowed: beside `on: boxes`, which "
            "sends the detector's boxes through this model",
        ),
        (
            with_taggers({"scene": {"model": "a", "on": "box"}}),
            "taggers.scene.on: found 'box'; allowed: 'image' or 'boxes'",
        ),
        (
            with_taggers({"scene": {"model": "a", "on": "boxes", "margin": 10}}),
            "taggers.scene.margin: found 10; allowed: at most 1",
        ),
        (
            with_taggers({"scene": {"model": "a", "on": "boxes", "margin": -0.1}}),
            "taggers.scene.margin: found -0.1; allowed: at least 0",
        ),
        (
            with_taggers({"a.b": "resnet50"}),
            "taggers: found the name 'a.b'; allowed: a letter or digit, then letters, digits, - and _; but "
            "none of manifest, classifier, detector, embedder, tagger, which are other sections",
        ),
        (
            with_taggers({"classifier": "resnet50"}),
            "taggers: found the name 'classifier'; allowed: a letter or digit, then letters, digits, - and "
            "_; but none of manifest, classifier, detector, embedder, tagger, which are other sections",
        ),
        (
            with_taggers({"scene": {"model": "a", "class_thresholds": {"b": 0.5}}}),
            "taggers.scene.class_thresholds: found without score_threshold, which is that of all other "
            "classes; allowed: both (score_threshold: 1 keeps no other class)",
        ),
        (
            {"manifest": "a", "output": "b", "detector": 3},
            "detector: found 3; allowed: text or keys and values",
        ),
        ({"manifest": None, "output": "b"}, "manifest: found null; allowed: text or keys and values"),
        (
            {"manifest": "a", "output": date(2024, 1, 1)},
            "output: found 2024-01-01; allowed: text (in quotes)",
        ),
        (
            {"manifest": "a", "output": "b", "compute": {"actors": {"min": 3, "max": 2}}},
            "compute.actors.max: found 2, below min 3; allowed: min or more",
        ),
        ({"manifest": "a", "output": "b", "max_failed": -1}, "max_failed: found -1; allowed: at least 0"),
        (
            {"manifest": "a", "output": "b", "fetch": {"timeout_s": float("inf")}},
            "fetch.timeout_s: found inf; allowed: a finite number",
        ),
        (
            {"manifest": "a", "output": "b", "units": {"shard_rows": 10**20}},
            "units.shard_rows: found 100000000000000000000; allowed: 'auto' or at most 1e+12",
        ),
        (
            {"manifest": "a", "output": "b", "fetch": {"timeout_s": 0}},
            "fetch.timeout_s: found 0; allowed: above 0",
        ),
        (
            stored("s3://photos", endpoint="minio:9000"),
            "storage.s3://photos.endpoint: found 'minio:9000'; allowed: http://HOST:PORT or https://HOST",
        ),
        (
            stored("s3://photos", endpoit="http://minio:9000"),
            "storage.s3://photos.endpoit: unknown key; allowed: endpoint, region, profile, "
            "credentials_env_prefix, anonymous, requester_pays, options, headers (did you mean endpoint?)",
        ),
        (
            stored("s3://photos", profile="a", anonymous=True),
            "storage.s3://photos: found profile and anonymous; allowed: one of profile, "
            "credentials_env_prefix, anonymous",
        ),
        (
            stored("photos", anonymous=True),
            "storage: found 'photos'; allowed: the beginning of URLs, such as s3://, s3://bucket or "
            "s3://bucket/folder, without user, password and query",
        ),
        (
            stored("gs://photos", region="here"),
            "storage.gs://photos: region are for s3://; allowed: anonymous, options",
        ),
        (
            stored("az://photos", options={"account_key": "abc"}),
            "storage.az://photos.options.account_key: a job spec holds no secrets; allowed: env:VARIABLE",
        ),
        (
            stored("https://host", options={"client_kwargs": {"headers": {"Authorization": "hidden"}}}),
            "storage.https://host.options.client_kwargs.headers.Authorization: a job spec holds no secrets; "
            "allowed: env:VARIABLE",
        ),
        (
            stored("s3://photos", headers={"Accept": "image/*"}),
            "storage.s3://photos: found headers; allowed: those of http:// and https://",
        ),
        (
            with_headers({"X-Key": "hidden"}),
            "fetch.headers.X-Key: a job spec holds no secrets; allowed: env:VARIABLE, or a word before it as "
            "in 'Bearer env:TOKEN', with the variable set on every node",
        ),
        (
            with_headers({"Authorization": "Bearer hidden"}),
            "fetch.headers.Authorization: a job spec holds no secrets; allowed: env:VARIABLE, or a word "
            "before it as in 'Bearer env:TOKEN', with the variable set on every node",
        ),
        (
            with_headers("Cookie: hidden"),
            "fetch.headers: found a value of type str; allowed: keys and values",
        ),
        (
            with_headers({"X-Key": 123}),
            "fetch.headers.X-Key: found a value of type int; allowed: text (in quotes)",
        ),
        (
            with_headers({"Range": "bytes=0-1"}),
            "fetch.headers.Range: raylabel sets it itself; allowed: other headers",
        ),
        (
            with_headers({"User-Agent": "a\nX-Key: b"}),
            "fetch.headers.User-Agent: found 'a\\nX-Key: b'; allowed: printable ASCII, in one line",
        ),
        (
            with_headers({"a b": "c"}),
            "fetch.headers: found the name 'a b'; allowed: letters, digits and -",
        ),
        (
            with_headers({"Accept": "a", "accept": "b"}),
            "fetch.headers: found one name twice in Accept, accept; allowed: each once",
        ),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        build_spec(values, "a test")
    assert str(raised.value).splitlines()[1:] == [f"  {message}"]


def test_cpus_and_gpus_are_no_custom_resources() -> None:
    compute = {"resources": {"GPU": 1, "fast": 1}}
    with pytest.raises(SpecError, match=r"compute.resources: found GPU; allowed: Ray's custom"):
        build_spec({"manifest": "a", "output": "b", "compute": compute}, "a test")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[1, 2]", "holds a list, where keys and values are allowed"),
        (b"a: [", "is not YAML in UTF-8: .* in line 1, column 5"),
        (b"", "is empty, where keys and values are allowed"),
        (b"output: caf\xe9", "is not YAML in UTF-8: 'utf-8' codec can't decode byte 0xe9"),
        (
            b"manifest: 2024-02-30",
            "is not YAML in UTF-8: '2024-02-30' is none of its type, in line 1, column 11",
        ),
        (
            b"manifest: a\noutput: b\nmanifest: c",
            "job.yaml: the key 'manifest' is there twice in line 3, column 1",
        ),
        (b"[" * 3000, "is not YAML in UTF-8: it is nested too deeply"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(text)
    with pytest.raises(SpecError, match=message):
        read_spec(str(path), {})


def test_a_manifest_or_image_in_place_of_a_spec_is_told_of_its_option(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "my photos.csv").write_text("uri\na.jpg\n")
    for path in (tmp_path / "my photos.csv", photos / "china.jpg", tmp_path / "nothing"):
        with pytest.raises(SpecError) as refused:
            read_spec(str(path), {})
        advice = f"If it is a manifest or an image, give it with --manifest {shlex.quote(str(path))}"
        assert advice in str(refused.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        (
            "score_threshold",
            "classifier.score_threshold or detector.score_threshold or taggers.NAME.score_threshold",
        ),
        (
            "weights",
            "classifier.weights or detector.weights or embedder.weights or taggers.NAME.weights",
        ),
        ("classifier.on", "embedder.on or taggers.NAME.on"),
        ("detector.max_pixels", "decode.max_pixels"),
    ],
)
def test_a_key_of_another_section_is_told_of_it(key: str, meant: str) -> None:
    with pytest.raises(SpecError, match=rf"{key}: unknown key; allowed: .* \(did you mean {meant}\?\)"):
        read_spec(None, {"manifest": "a", "output": "b", key: 1})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"cannot read the job spec .*nothing\.yaml: No such file"):
        read_spec(str(tmp_path / "nothing.yaml"), {})
    with pytest.raises(SpecError, match=r"cannot read the job spec a{300}: File name too long"):
        spec_of("a" * 300, {})


def test_a_spec_cannot_be_changed() -> None:
    spec = build_spec({"manifest": "a", "output": "b"}, "a test")
    with pytest.raises(ValueError, match="frozen"):
        spec.output = "c"  # type: ignore[misc]


def test_headers_are_those_of_all_web_servers_and_a_server_has_its_own() -> None:
    headers = {"User-Agent": "me", "Authorization": "Bearer env:TOKEN"}
    storage = {"https://cdn": {"headers": {"authorization": "env:CDN"}}, "s3://b": {"anonymous": True}}
    spec = build_spec(
        {"manifest": "a", "output": "b", "fetch": {"headers": headers}, "storage": storage}, "a test"
    )
    assert {url: options.headers for url, options in spec.reached.items()} == {
        "https://cdn": {"User-Agent": "me", "authorization": "env:CDN"},
        "s3://b": {},
        "http://": headers,
        "https://": headers,
    }
    assert spec.model_copy(update={"fetch": FetchSpec()}).reached == spec.storage


def test_facts_are_in_one_order_however_they_are_written() -> None:
    def facts(value: object) -> list[str]:
        return [*build_spec({"manifest": "a", "output": "b", "facts": value}, "a test").facts]

    assert facts("phash") == ["phash"]
    assert facts(["phash", "exif"]) == facts(["exif", "phash"]) == ["exif", "phash"]
    assert facts([]) == []
    assert get_args(Fact) == tuple(FACTS_OF)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["exif", "exif"], "facts: found exif, exif; allowed: each once"),
        (["gps"], "facts.0: found 'gps'; allowed: 'exif' or 'phash'"),
        ("gps", "facts.0: found 'gps'; allowed: 'exif' or 'phash'"),
        (3, "facts: found 3; allowed: a list"),
    ],
)
def test_facts_that_are_none_are_refused(value: object, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        build_spec({"manifest": "a", "output": "b", "facts": value}, "a test")
    assert str(raised.value).splitlines()[1:] == [f"  {message}"]
