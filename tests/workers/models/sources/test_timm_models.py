import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from schemas.exceptions import ModelError
from schemas.images import Classification
from schemas.tasks import ClassifierSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import ROOT, calibrated, small_photos
from workers.models.registry import load


def test_classifications_are_those_of_timms_own_transform_and_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = timm.create_model("resnet10t", pretrained=False)
    transform = create_transform(**resolve_model_data_config(module), is_training=False)
    images = small_photos()
    inputs = [transform(Image.fromarray(image.pixels)) for image in images]
    calibrated(module, torch.stack(inputs))
    torch.save(module.state_dict(), tmp_path / "own.pth")
    loaded = load(ClassifierSpec(model="timm/resnet10t", weights=str(tmp_path / "own.pth")))
    assert loaded.model.categories[0] == "tench, Tinca tinca"
    with torch.inference_mode():
        expected = [module(x[None]).softmax(1)[0].topk(5) for x in inputs]
    for batch_size in (1, 4):
        for result, best in zip(Alone(loaded, batch_size)(images), expected, strict=True):
            assert isinstance(result, Classification)
            assert result.label_ids.tolist() == best.indices.tolist()
            np.testing.assert_allclose(result.scores, best.values, atol=1e-4, rtol=0)


def test_weights_for_ones_own_classes_take_the_specs_names(tmp_path: Path) -> None:
    module = timm.create_model("resnet10t", pretrained=False, num_classes=3)
    torch.save(module.state_dict(), tmp_path / "own.pth")
    spec = ClassifierSpec(
        model="timm/resnet10t", weights=str(tmp_path / "own.pth"), categories=["a", "b", "c"]
    )
    assert load(spec).model.categories == ("a", "b", "c")


def test_a_sha256_without_a_file_is_refused() -> None:
    with pytest.raises(ModelError, match="timm fetches the weights of timm/resnet18 by itself"):
        load(ClassifierSpec(model="timm/resnet18", sha256="0" * 64))


def test_weights_that_cannot_be_fetched_say_what_to_do(tmp_path: Path) -> None:
    program = (
        "from workers.models.registry import load\n"
        "from schemas.spec import ClassifierSpec\n"
        "load(ClassifierSpec(model='timm/resnet18'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModelError: timm's weights for timm/resnet18 cannot be fetched" in done.stderr
    assert "give `weights: FILE`" in done.stderr
