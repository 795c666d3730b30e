import hashlib
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from schemas.exceptions import ModelError
from schemas.images import Classification, Detections
from schemas.spec import ClassifierSpec, DetectorSpec
from tests.workers.models.pictures import CPU, noise
from workers.models.classifier import Classifier
from workers.models.detector import Detector
from workers.models.model import versions
from workers.models.registry import load_classifier, load_detector
from workers.models.sources import factory

DETECTOR = """
import torch
from workers.models.model import DetectorModel, as_is


class Middle(torch.nn.Module):
    def forward(self, images):
        size = [(x.shape[2], x.shape[1]) for x in images]
        return [
            {
                "boxes": torch.tensor([[w / 4, h / 4, w / 2, h / 2]]),
                "scores": torch.tensor([0.8]),
                "labels": torch.tensor([1]),
            }
            for w, h in size
        ]


def middle() -> DetectorModel:
    return DetectorModel(module=Middle(), transform=as_is, categories=("nothing", "middle"))


def broken() -> DetectorModel:
    raise OSError("no such disk")


def wrong() -> int:
    return 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path with the documentation's my_models.py and a my_detectors.py."""
    documented = (factory.__doc__ or "").split("my_models.py:\n")[1].split("\nand in the job spec")[0]
    (tmp_path / "my_models.py").write_text(textwrap.dedent(documented), encoding="utf-8")
    (tmp_path / "my_detectors.py").write_text(DETECTOR, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_models", "my_detectors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_documented_example_tells_blue_photos_from_others(own: Path) -> None:
    loaded = load_classifier(ClassifierSpec(model="my_models:sky"))
    blue, red = noise(1), noise(2)
    blue.pixels[..., :2] = 0
    red.pixels[..., 1:] = 0
    found = Classifier(loaded, CPU, 4)([blue, red])
    best = [loaded.model.categories[x.label_ids[0]] for x in found if isinstance(x, Classification)]
    assert best == ["sky", "other"]
    digest = hashlib.sha256((own / "my_models.py").read_bytes()).hexdigest()
    assert loaded.resolved.code == f"my_models sha256 {digest}, {versions('torch')}"
    assert " at 0x" not in loaded.resolved.preprocessing


@pytest.mark.usefixtures("own")
def test_a_detector_of_ones_own_gives_boxes_in_pixels_of_the_image() -> None:
    loaded = load_detector(DetectorSpec(model="my_detectors:middle", class_thresholds={"middle": 0.7}))
    (found,) = Detector(loaded, CPU, 4)([noise(1, height=40, width=60)])
    assert isinstance(found, Detections)
    assert found.boxes.tolist() == [[15, 10, 30, 20]]
    assert found.class_ids.tolist() == [1]


def test_weights_and_names_of_the_spec_take_the_place_of_the_factorys(own: Path) -> None:
    loaded = load_classifier(ClassifierSpec(model="my_models:sky"))
    state = loaded.model.module.state_dict()
    torch.save({key: -value for key, value in state.items()}, own / "minus.pth")
    other = load_classifier(
        ClassifierSpec(model="my_models:sky", weights=str(own / "minus.pth"), categories=["x", "y"])
    )
    assert torch.equal(other.model.module.state_dict()["2.weight"], -state["2.weight"])
    assert other.model.categories == ("x", "y")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such_module:model", "cannot import no_such_module .* PYTHONPATH"),
        ("my_detectors:nobody", "has no function 'nobody'"),
        ("my_detectors:broken", "the factory failed .*no such disk"),
        ("my_detectors:wrong", "returned a int; expected a DetectorModel"),
        ("my_models:sky", "returned a ClassifierModel; expected a DetectorModel"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_is_no_factory_of_a_detector_is_refused(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_detector(DetectorSpec(model=model))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("nms_iou", 0.5, "has no `nms_thresh` to set"), ("sha256", "0" * 64, "brings its own weights")],
)
def test_settings_that_a_factory_cannot_honour_are_refused(key: str, value: object, message: str) -> None:
    spec = DetectorSpec(model="my_detectors:middle").model_copy(update={key: value})
    with pytest.raises(ModelError, match=message):
        load_detector(spec)
