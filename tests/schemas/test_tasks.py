"""What a job spec's `model` is: a name, a location or a factory."""

import pytest

from schemas.tasks import ClassifierSpec

ONNX = (
    "zip://nsfw.onnx::s3://models/all.zip",
    "nsfw.onnx",
    "models/NSFW.ONNX",
    "models?/what?.onnx",
    "what?.onnx",
    "file:///models/what?.onnx",
    "zip://what?.onnx::s3://models/all.zip",
    "simplecache::https://host/nsfw.onnx?token=a",
    "s3://models/nsfw.onnx",
    "https://host/nsfw.onnx?signature=a:b/c",
    "http://[::1]/nsfw.onnx",
)
FOLDERS = (
    "zip://vit::s3://models/all.zip",
    "./dinov2/",
    "models/vit",
    "models/nsfw.onnx?old",
    "/models/vit/",
    "s3://models/rtdetr/",
    "https://host/vit/?token=a",
)
FACTORIES = ("my_models:sky", "my.models:sky")
NAMES = ("efficientnet_lite0", "torchvision/resnet50", "timm/vit_tiny_patch16_224", "onnx")


@pytest.mark.parametrize("model", [*ONNX, *FOLDERS, *FACTORIES, *NAMES])
def test_a_model_is_a_file_or_a_folder_or_a_factory_or_a_name(model: str) -> None:
    spec = ClassifierSpec(model=model)
    assert (spec.is_onnx, spec.is_folder, spec.is_factory) == (
        model in ONNX,
        model in FOLDERS,
        model in FACTORIES,
    )
    assert spec.is_location == (model in (*ONNX, *FOLDERS))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("s3://models/nsfw.onnx?signature=a/b", "nsfw.onnx"),
        ("nsfw.onnx", "nsfw.onnx"),
        ("models/what?.onnx", "what?.onnx"),
        ("./dinov2/", "dinov2"),
        ("https://user:password@host/", "host"),
        ("zip://a/vit::s3://models/all.zip", "vit"),
        ("https://host/vit/?token=a", "vit"),
        ("torchvision/resnet50", "resnet50"),
        ("timm/vit_tiny_patch16_224", "timm/vit_tiny_patch16_224"),
        ("my_models:sky", "my_models:sky"),
    ],
)
def test_a_model_is_shown_by_a_short_name(model: str, name: str) -> None:
    assert ClassifierSpec(model=model).name == name
