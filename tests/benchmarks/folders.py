"""ONNX Runtime against torch for Hugging Face folders of usual sizes, with random weights, on one thread.

python -m tests.benchmarks.folders
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from schemas.tasks import ClassifierSpec, DetectorSpec, ModelSpec
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import photos
from tests.workers.models.transformers.made import Made, make
from workers.models.registry import load

_BACKBONE = {"model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]}

FOLDERS: dict[str, tuple[type[ModelSpec], Made]] = {
    "vit-base, 224x224": (ClassifierSpec, ("ViTForImageClassification", {}, "ViTImageProcessor", {})),
    "rt-detr r50, 640x640": (
        DetectorSpec,
        ("RTDetrForObjectDetection", {"backbone_config": _BACKBONE}, "RTDetrImageProcessor", {}),
    ),
}
"""Of each size: the kind of model, and what its folder holds."""

ROUNDS = 3


def seconds_an_image(model: Alone, images: list[Any]) -> float:
    """The shortest time of processor an image took in some rounds."""
    model(images[:1])
    rounds = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        model(images)
        rounds.append((time.thread_time() - start) / len(images))
    return min(rounds)


def main() -> None:
    """Prints a row for each folder."""
    torch.set_num_threads(1)
    images = list(photos().values())[:2]
    for name, (kind, made) in FOLDERS.items():
        with tempfile.TemporaryDirectory() as folder:
            make(made, Path(folder))
            ways: tuple[Any, ...] = ("onnxruntime", "torch")
            onnx, eager = (
                seconds_an_image(Alone(load(kind(model=f"{folder}/")), 1, runtime=way), images)
                for way in ways
            )
        times = f"ONNX Runtime {onnx * 1000:.0f} ms, torch {eager * 1000:.0f} ms"
        print(f"{name}: {times}, ratio {onnx / eager:.2f}")


if __name__ == "__main__":
    main()
