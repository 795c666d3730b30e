"""The lines of docs/models.md for "I have X, what do I write?" on weights and class maps, with real files."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torchvision import models

from schemas.spec import JobSpec
from schemas.spec_file import build_spec, parse_yaml
from schemas.tasks import BoxChoice, DetectorSpec
from tests.conftest import ROOT
from workers.models.model import LoadedModel
from workers.models.preprocess import Preprocess
from workers.models.registry import load_all

PAGE = (ROOT / "docs" / "models.md").read_text()
NAMES = ["heron", "kingfisher", "wren"]


def written(have: str) -> dict[str, Any]:
    """What the page says to write for what one has."""
    (line,) = re.findall(rf"^\| {re.escape(have)} \| `(.*)` \|$", PAGE, re.MULTILINE)
    section: dict[str, Any] = parse_yaml(line)
    return section


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return tmp_path


def test_every_line_of_the_table_is_tried() -> None:
    table = PAGE.partition("## I have X, what do I write?\n")[2].split("| I have | I write |")[2]
    lines = re.findall(r"^\| (.+?) \| `", table.partition("\n\n")[0], re.MULTILINE)
    assert lines == re.findall(r' loaded\("(.+)"\)', Path(__file__).read_text())


def loaded(have: str) -> LoadedModel[Any, Any]:
    own = written(have)
    of_boxes = any("on" in section for section in (own.get("embedder", {}), *own.get("taggers", {}).values()))
    left_out = {"classifier": None} if of_boxes else {"classifier": None, "detector": None}
    spec: JobSpec = build_spec({"manifest": "photos.csv", "output": "out", **left_out, **own}, "the page")
    *others, model = load_all(spec.models).values()
    assert len(others) == of_boxes
    return model


def test_a_checkpoint_of_timm_with_averaged_weights(folder: Path) -> None:
    plain, averaged = (timm.create_model("resnet18", num_classes=3).state_dict() for _ in range(2))
    torch.save(
        {"epoch": 3, "arch": "resnet18", "state_dict": plain, "state_dict_ema": averaged, "metric": 70.0},
        "model_best.pth.tar",
    )
    found = loaded("a checkpoint of timm with averaged weights (EMA)")
    assert torch.equal(found.model.module.state_dict()["fc.weight"], averaged["fc.weight"])
    assert (
        found.resolved.weights == f"{folder}/model_best.pth.tar, its 'state_dict_ema', not its 'state_dict'"
    )
    assert found.resolved.categories == tuple(NAMES)


def test_a_checkpoint_of_lightning(folder: Path) -> None:
    state = models.resnet18(weights=None, num_classes=3).state_dict()
    torch.save(
        {
            "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
            "pytorch-lightning_version": "2.5.0",
        },
        "last.ckpt",
    )
    found = loaded("a checkpoint of Lightning")
    assert torch.equal(found.model.module.state_dict()["fc.weight"], state["fc.weight"])
    assert found.resolved.weights == f"{folder}/last.ckpt, 'model.' left out of its names"


def test_weights_that_were_trained_with_another_mean_and_std(folder: Path) -> None:
    torch.save(models.resnet18(weights=None, num_classes=3).state_dict(), folder / "own.pth")
    transform = loaded("weights that were trained with another mean and std").model.transform
    assert transform == Preprocess(
        size=(256, 256), fit="short side", crop=(224, 224), mean=(0.5,) * 3, std=(0.5,) * 3
    )


def test_imagenets_labels_as_cats_and_dogs() -> None:
    found = loaded("ImageNet's labels, and want cats and dogs")
    names = dict(zip(found.resolved.categories, found.resolved.known_as, strict=True))
    assert (names["tabby"], names["pug"], names["school bus"]) == ("cat", "dog", "bus")


def test_a_detectors_80_classes_as_three_of_ones_own(folder: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(# things\.yaml\n.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "things.yaml").write_text(example)
    found = loaded("a detector of 80 classes, and want three of my own").resolved
    assert found.classes == ("person", "vehicle", "pet")


def test_large_images_of_small_objects() -> None:
    settings = loaded("large images of small objects").resolved.settings
    assert settings["tiles"] == {"size": 1024, "overlap": 0.2, "iou": 0.6}


def test_species_of_the_birds_that_the_detector_finds(folder: Path) -> None:
    torch.save(models.resnet18(weights=None, num_classes=3).state_dict(), folder / "own.pth")
    found = loaded("a classifier of species, for the birds that the detector finds")
    assert found.spec.boxes == BoxChoice(("bird",), 0.1)
    assert found.resolved.gets_boxes
    assert (
        found.resolved.settings["detector"]
        == load_all({"detector": DetectorSpec()})["detector"].resolved.fingerprint
    )
    assert found.resolved.tables == ("tags",)


def test_a_vector_of_each_person() -> None:
    found = loaded("people, and want to find the same one again")
    assert found.spec.boxes == BoxChoice(("person",))
    assert (found.resolved.tables, found.resolved.width) == (("object_embeddings",), 1280)
