import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from timm.data import ImageNetInfo
from torchvision.models import MobileNet_V2_Weights

from schemas.exceptions import ModelError
from schemas.tasks import WORDNET, ClassifierSpec, DetectorSpec, TaggerSpec
from tests.conftest import ROOT
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import CPU, photos
from workers.models.class_maps import folded_names, imagenet
from workers.models.model import DetectorModel, as_is
from workers.models.registry import load, runners_of
from workers.models.runner import RunnerOptions

ANIMALS = ("cat", "dog", "car", "bus")
IMAGENET = tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"])


def write(tmp_path: Path, text: str, name: str = "map.yaml") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_class_map_renames_merges_and_drops(tmp_path: Path) -> None:
    for text, expected in {
        "car: vehicle\nbus: vehicle\ncat:": (None, "dog", "vehicle", "vehicle"),
        "dog: pet\n'*':": (None, "pet", None, None),
        "dog: pet\ncat: pet\n'*': other": ("pet", "pet", "other", "other"),
        "dog: cat": ("cat", "cat", "car", "bus"),
        "dog: dog": (),
    }.items():
        assert folded_names(DetectorSpec(class_map=write(tmp_path, text)), ANIMALS) == expected


def test_a_class_map_is_read_from_any_url() -> None:
    with fsspec.open("memory://maps/a.csv", "w") as file:
        file.write("from,to\ncar,vehicle\n")
    spec = TaggerSpec(model="resnet18", class_map="memory://maps/a.csv?token=secret")
    with pytest.raises(ModelError, match=r"memory://maps/a\.csv cannot be read") as caught:
        folded_names(spec, ANIMALS)
    assert "secret" not in str(caught.value)
    spec = TaggerSpec(model="resnet18", class_map="memory://maps/a.csv")
    assert folded_names(spec, ANIMALS) == ("cat", "dog", "vehicle", "bus")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vans: vehicle", ": nanodet_g has no class 'vans'; it has 4, such as cat, dog, car, bus"),
        ("dgo: pet", ": nanodet_g has no class 'dgo'; it has 4, such as dog"),
        ("cat:\ndog:\ncar:\nbus:", " leaves nanodet_g no class; keep at least one"),
        ("'*':", " leaves nanodet_g no class; keep at least one"),
        ("", ": found an empty file; allowed is a line `name: new name` for each class, in YAML"),
    ],
)
def test_a_map_that_does_not_fit_the_model_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ModelError) as caught:
        folded_names(DetectorSpec(class_map=file), ANIMALS)
    assert str(caught.value) == f"class_map: {file}{message}"


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        ModelError, match=rf"class_map: the file {Path.cwd()}/none\.csv cannot be read: No such"
    ):
        folded_names(DetectorSpec(class_map="none.csv"), ANIMALS)


def test_the_content_of_a_map_is_part_of_the_model_and_not_where_it_lies(tmp_path: Path) -> None:
    plain = load(DetectorSpec()).resolved
    one = load(DetectorSpec(class_map=write(tmp_path, "car: vehicle"))).resolved
    same = load(DetectorSpec(class_map=write(tmp_path, "class,name\ncar,vehicle\n", "b.csv"))).resolved
    other = load(DetectorSpec(class_map=write(tmp_path, "car: auto", "c.yaml"))).resolved
    nothing = load(DetectorSpec(class_map=write(tmp_path, "car: car", "d.yaml"))).resolved
    assert one.identity() == same.identity()
    assert one.fingerprint == same.fingerprint
    assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert nothing.fingerprint == plain.fingerprint
    assert one.categories == plain.categories
    assert "vehicle" in one.classes
    assert "car" not in one.classes


def test_thresholds_go_by_the_new_names(tmp_path: Path) -> None:
    file = write(tmp_path, "car: vehicle\nbus: vehicle\ndog:")
    load(DetectorSpec(class_map=file, class_thresholds={"vehicle": 0.9}))
    for name, message in {
        "car": "class_thresholds: nanodet_g has no class 'car'; by the class map it is 'vehicle'",
        "dog": "class_thresholds: nanodet_g has no class 'dog'; the class map leaves it out",
        "vehicel": "class_thresholds: nanodet_g has no class 'vehicel'; did you mean vehicle?",
    }.items():
        with pytest.raises(ModelError) as caught:
            load(DetectorSpec(class_map=file, class_thresholds={name: 0.9}))
        assert str(caught.value) == message


def test_a_classifier_and_a_tagger_of_one_network_fold_their_classes_each_its_own_way(tmp_path: Path) -> None:
    specs: dict[str, Any] = {
        "classifier": ClassifierSpec(class_map=WORDNET, top_k=2),
        "taggers.kind": TaggerSpec(model="efficientnet_lite0", top_k=3),
        "taggers.pet": TaggerSpec(
            model="efficientnet_lite0",
            class_map=write(tmp_path, "tabby: pet\ntiger cat: pet\nEgyptian cat: pet\n'*':"),
            score_threshold=0.2,
        ),
    }
    models = {name: load(spec) for name, spec in specs.items()}
    (runner,) = runners_of(models, RunnerOptions(CPU, 1, runtime="torch"))
    (results,) = runner([photos()["chelsea.png"]])
    assert isinstance(results, tuple)
    label, kinds, pets = results
    names = [models["classifier"].resolved.known_as[number] for number in label.label_ids]
    assert names[0] == "cat"
    assert len(set(names)) == 2
    by_name = dict(zip((IMAGENET[number] for number in kinds.label_ids), kinds.scores.tolist(), strict=True))
    cats = {"tabby", "tiger cat", "Egyptian cat", "Persian cat", "Siamese cat"}
    assert set(by_name) <= cats
    assert IMAGENET[label.label_ids[0]] == next(iter(by_name))  # the model's own best class
    assert label.scores[0] == pytest.approx(sum(by_name.values()), abs=0.02)
    assert [models["taggers.pet"].resolved.known_as[number] for number in pets.label_ids] == ["pet"]
    values = runner.predictors[0].values(label)
    assert (values["label"], values["label_id"]) == ("cat", int(label.label_ids[0]))


VEHICLES = torch.tensor([[10.0, 10, 60, 60], [12, 12, 62, 62], [13, 10, 60, 60], [100, 100, 140, 140]])


class Crowd(torch.nn.Module):
    """Finds one object as a car and as a bus, and keeps the best three boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.score_thresh, self.nms_thresh, self.detections_per_img = 0.05, 0.5, 3

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([2, 3, 1, 2])
        most = self.detections_per_img
        found = {"boxes": VEHICLES, "scores": scores, "labels": labels}
        return [{key: value[:most] for key, value in found.items()} for _ in images]


class NoSettings(torch.nn.Module):
    """The same without attributes that a job could set."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return Crowd()(images)  # type: ignore[no-any-return]


def crowd() -> DetectorModel:
    return DetectorModel(module=Crowd(), transform=as_is, categories=ANIMALS)


def no_settings() -> DetectorModel:
    return DetectorModel(module=NoSettings(), transform=as_is, categories=ANIMALS)


def found_by(spec: DetectorSpec) -> list[tuple[str | None, int, float]]:
    loaded = load(spec)
    (image,) = Alone(loaded, 1)([photos()["coffee.png"]])
    return [
        (loaded.resolved.known_as[number], int(number), round(float(score), 3))
        for number, score in zip(image.class_ids, image.scores, strict=True)
    ]


def test_one_object_is_one_box_where_the_model_has_suppressed_boxes_by_its_own_classes(
    tmp_path: Path,
) -> None:
    file = write(tmp_path, "car: vehicle\nbus: vehicle\ncat:")
    spec = DetectorSpec(model=f"{__name__}:crowd", class_map=file)
    assert found_by(spec.model_copy(update={"class_map": None})) == [
        ("car", 2, 0.9),
        ("bus", 3, 0.8),
        ("dog", 1, 0.7),
    ]
    # the limit of three counts what is left
    assert found_by(spec) == [("vehicle", 2, 0.9), ("dog", 1, 0.7), ("vehicle", 2, 0.6)]
    resolved = load(spec).resolved
    assert (resolved.settings["merge_iou"], resolved.settings["max_boxes"]) == (0.5, 3)
    assert resolved.notes == (
        f"class_map: {__name__}:crowd suppresses doubled boxes by its own classes, before they are folded; "
        "of boxes of classes with one new name that overlap more than 0.5, the best is kept afterwards",
    )
    assert len(found_by(spec.model_copy(update={"nms_iou": 0.95}))) == 3
    assert found_by(spec.model_copy(update={"max_boxes": 1})) == [("vehicle", 2, 0.9)]
    dropped = write(tmp_path, "dog:", "b.yaml")
    assert found_by(spec.model_copy(update={"class_map": dropped})) == [
        ("car", 2, 0.9),
        ("bus", 3, 0.8),
        ("car", 2, 0.6),
    ]
    assert load(spec.model_copy(update={"class_map": dropped})).resolved.notes == ()


def test_a_detector_without_settings_gets_the_overlap_of_the_job_for_merged_classes(tmp_path: Path) -> None:
    spec = DetectorSpec(model=f"{__name__}:no_settings", class_map=write(tmp_path, "car: bus"))
    assert found_by(spec) == [("bus", 2, 0.9), ("dog", 1, 0.7)]
    assert found_by(spec.model_copy(update={"nms_iou": 0.95})) == [
        ("bus", 2, 0.9),
        ("bus", 3, 0.8),
        ("dog", 1, 0.7),
    ]
    with pytest.raises(ModelError, match=r"gives an object one box by itself; .* an attribute `nms_thresh`"):
        load(spec.model_copy(update={"nms_iou": 0.95, "class_map": None}))


def test_nanodet_suppresses_boxes_by_their_new_names(tmp_path: Path) -> None:
    image = photos()["coffee.png"]
    plain, renamed = (
        load(DetectorSpec(score_threshold=0.05, class_map=file))
        for file in (None, write(tmp_path, "cup: mug", "renamed.yaml"))
    )
    everything = write(tmp_path, "'*': thing\nperson:")
    merged = load(DetectorSpec(score_threshold=0.05, class_map=everything))
    (before,), (same,), (after,) = (Alone(loaded, 1)([image]) for loaded in (plain, renamed, merged))
    assert before.boxes.tolist() == same.boxes.tolist()
    assert before.scores.tolist() == same.scores.tolist()
    assert before.class_ids.tolist() == same.class_ids.tolist()
    assert 0 < len(after.scores) < len(before.scores)
    assert merged.resolved.notes == ()
    person = merged.resolved.categories.index("person")
    kept = [number for number, class_id in enumerate(before.class_ids) if class_id != person]
    assert after.scores[0] == before.scores[kept[0]]
    assert after.class_ids[0] == before.class_ids[kept[0]]


def test_wordnet_names_the_classes_of_torchvision_and_of_timm_alike() -> None:
    info = ImageNetInfo("imagenet-1k")
    timms = tuple(info.index_to_description(number) for number in range(1000))
    by_torchvision, by_timm = (
        folded_names(ClassifierSpec(class_map=WORDNET), names) for names in (IMAGENET, timms)
    )
    assert by_torchvision == by_timm
    counts = Counter(by_torchvision)
    assert len(counts) == 549
    assert {name: counts[name] for name in ("dog", "bird", "cat", "car", "snake")} == {
        "dog": 118,
        "bird": 59,
        "cat": 5,
        "car": 10,
        "snake": 17,
    }
    names = dict(zip(IMAGENET, by_torchvision, strict=True))
    assert (names["tabby"], names["crane bird"], names["crane"]) == ("cat", "bird", "crane")


def test_wordnet_names_some_of_imagenets_classes_by_any_of_their_names() -> None:
    own = ("tabby", "golden retriever", "n02123394", "tench, Tinca tinca")
    assert folded_names(ClassifierSpec(class_map=WORDNET), own) == ("cat", "dog", "cat", "fish")
    with pytest.raises(ModelError) as caught:
        folded_names(ClassifierSpec(class_map=WORDNET), ("tabby", "tabbi"))
    assert str(caught.value) == (
        "class_map: wordnet is for ImageNet's 1,000 classes, but 'tabbi' of efficientnet_lite0 is none of "
        "them (it has tabby); give other classes their names by a file of yours"
    )
    with pytest.raises(ModelError) as caught:
        load(DetectorSpec(class_map=WORDNET))
    assert str(caught.value) == (
        "class_map: wordnet is for ImageNet's 1,000 classes, but 'person' of nanodet_g is none of them; give "
        "other classes their names by a file of yours"
    )


@pytest.mark.parametrize("written", ["wordnett", "Wordnet", "word-net"])
def test_a_misspelt_wordnet_is_told(written: str) -> None:
    with pytest.raises(ModelError) as caught:
        folded_names(ClassifierSpec(class_map=written), ANIMALS)
    assert str(caught.value) == (
        f"class_map: {written}: allowed are files that end in .yaml, .yml or .csv, and wordnet for "
        "ImageNet's classes (did you mean wordnet?)"
    )


def test_a_file_called_wordnet_is_not_taken_for_the_shipped_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(WORDNET).write_text("class,name\ntabby,mine\n")
    spec = ClassifierSpec(class_map=WORDNET)
    assert spec.places == {}
    assert "mine" not in (found := load(spec).resolved).classes
    assert found.names == folded_names(spec, found.categories)
    assert len(found.classes) == 549
    assert ClassifierSpec(class_map=f"./{WORDNET}").places == {"class_map": "./wordnet"}


def test_the_shipped_map_is_what_the_script_makes_of_wordnet() -> None:
    data = Path("/usr/share/wordnet/data.noun")
    if not data.exists():
        pytest.skip("WordNet is not installed (Debian: wordnet-base)")
    script = ROOT / "infra" / "class_maps" / "imagenet_wordnet.py"
    module_spec = importlib.util.spec_from_file_location("imagenet_wordnet", script)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    made = list(module.rows(module.read_synsets(data)))
    assert made == [tuple(row.values()) for row in imagenet()]
