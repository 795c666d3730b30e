import json
from pathlib import Path
from typing import Any

import pytest

from jobs.prepare.check import check_job
from schemas.exceptions import ModelError
from schemas.spec import JobSpec
from schemas.spec_file import build_spec

DETECTORS = """
import torch
from workers.models.model import DetectorModel


class Answers(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, images):
        while self.name == "never":
            pass
        label = {"of a class": 0, "of none": 7}[self.name]
        box = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.tensor([label])}
        return [box] * len(images)


def as_is(image):
    return image / 255


def build(answers: str) -> DetectorModel:
    return DetectorModel(module=Answers(answers), transform=as_is, categories=("cat",))
"""


def with_detector(answers: str, photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> JobSpec:
    """A job with a detector that answers so."""
    (folder / "detectors_to_check.py").write_text(DETECTORS)
    monkeypatch.syspath_prepend(str(folder))
    values: dict[str, Any] = {
        "manifest": str(photos),
        "output": str(folder / "out"),
        "classifier": None,
        "detector": {"model": "detectors_to_check:build", "options": {"answers": answers}},
        "compute": {"timeout_s": 2},
    }
    return build_spec(values, "a test")


def test_a_model_that_fails_on_the_first_image_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "the models fail on the first image: detect: MODEL_ERROR: .*answered with class 7"
    with pytest.raises(ModelError, match=message):
        check_job(with_detector("of none", photos, tmp_path, monkeypatch), as_json=False)


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ("of a class", " s, labelled"),
        ("never", "; a failed row: detect: TIMEOUT: took more than 2 s of processor time"),
    ],
)
def test_the_first_image_goes_through_the_models(
    answers: str,
    outcome: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_job(with_detector(answers, photos, tmp_path, monkeypatch), as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["state"] == "to do"
    assert report["detector"].endswith(" (1 class), score above 0.4")
    first = f"{photos}/astronaut.png, 791,555 bytes read in "
    assert report["first image"].startswith(first)
    assert outcome in report["first image"]
