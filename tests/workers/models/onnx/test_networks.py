"""Real networks under each layout: NanoDet against the built-in detector, RetinaNet against torch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from schemas.images import DecodedImage, Detections
from schemas.tasks import DetectorSpec, InputSpec
from tests.workers.models.alone import Alone
from tests.workers.models.onnx.exports import UnderLayout, cells, export
from tests.workers.models.pictures import calibrated, photos
from workers.models.registry import load
from workers.models.sources.nanodet import Fit, NanoDet

slow = pytest.mark.slow


def squares(side: int) -> list[DecodedImage]:
    """The demo photos as squares, so that nobody has to resize them."""
    found = []
    for photo in photos().values():
        pixels = np.asarray(Image.fromarray(photo.pixels).resize((side, side)))
        found.append(DecodedImage(pixels.copy(), "PNG", 1, "RGB", 1))
    return found


class NanoDetBoxes(nn.Module):
    """NanoDet-g from RGB, 0 to 1, to boxes (n, cells, 4) and scores (n, cells, 80)."""

    def __init__(self, detector: NanoDet) -> None:
        super().__init__()
        self.network = detector.network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        fit = Fit()
        mean, std = (torch.tensor(it)[:, None, None] for it in (fit.mean_bgr, fit.std_bgr))
        levels = self.network((images.flip(1) * 255 - mean) / std)
        answers = torch.cat([level.flatten(2) for level in levels], dim=2).transpose(1, 2)
        grid = cells(416, 416)
        bins = answers[..., 80:].reshape(-1, len(grid), 4, 11).softmax(3)
        distances = (bins * torch.arange(11)).sum(3) * grid[:, 2:]
        centre = (grid[:, :2] + 0.5) * grid[:, 2:]
        boxes = torch.cat([centre - distances[..., :2], centre + distances[..., 2:]], dim=2)
        return boxes, answers[..., :80].sigmoid()


@pytest.mark.parametrize(
    "layout",
    [
        "yolov8",
        pytest.param("yolov5", marks=slow),
        pytest.param("yolox", marks=slow),
        pytest.param("yolo-nas", marks=slow),
    ],
)
def test_nanodet_as_a_file_finds_what_the_built_in_one_finds(tmp_path: Path, layout: str) -> None:
    built_in = load(DetectorSpec(score_threshold=0.4))
    names = list(built_in.model.categories)
    module = built_in.model.module
    assert isinstance(module, NanoDet)
    file = export(
        UnderLayout(NanoDetBoxes(module), layout, (416, 416)),
        tmp_path / "nanodet.onnx",
        (416, 416),
        layout=layout,
    )
    share = 0.5 if layout in ("yolov5", "yolox") else 1.0  # its objectness
    given = InputSpec(channels="rgb", scale=255)
    spec = DetectorSpec(
        model=str(file),
        layout=layout,
        categories=names,
        input=given,
        score_threshold=0.4 * share,
        nms_iou=0.6,
    )
    images = squares(416)
    found = 0
    for ours, theirs in zip(
        Alone(load(spec), 1)(images), Alone(built_in, 1, runtime="torch")(images), strict=True
    ):
        assert isinstance(ours, Detections)
        np.testing.assert_array_equal(ours.class_ids, theirs.class_ids)
        np.testing.assert_allclose(ours.scores, theirs.scores * share, atol=1e-3)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.1)
        found += len(ours.scores)
    assert found >= 6


class RetinaNetBoxes(nn.Module):
    """A RetinaNet of three classes with random weights: its 300 best boxes (n, 300, 4) and scores (n, "
    "300, 3)."""

    def __init__(self, side: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        nn.init.normal_(self.network.head.classification_head.cls_logits.weight, std=0.3)
        nn.init.normal_(self.network.head.regression_head.bbox_reg.weight, std=0.05)
        images = torch.zeros(1, 3, side, side)
        maps = list(self.network.eval().backbone(images).values())
        (anchors,) = self.network.anchor_generator(ImageList(images, [(side, side)]), maps)
        self.anchors = nn.Parameter(anchors, requires_grad=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        answer = self.network.head(list(self.network.backbone(images).values()))
        scores, moves = answer["cls_logits"].sigmoid(), answer["bbox_regression"]
        sides = self.anchors[:, 2:] - self.anchors[:, :2]
        centre = self.anchors[:, :2] + sides / 2 + moves[..., :2] * sides
        sides = sides * moves[..., 2:].clamp(-2, 2).exp()
        boxes = torch.cat([centre - sides / 2, centre + sides / 2], dim=2)
        best = scores.amax(dim=2).topk(300, dim=1).indices[..., None]
        return boxes.gather(1, best.expand(-1, -1, 4)), scores.gather(1, best.expand(-1, -1, 3))


@slow
@pytest.mark.parametrize("layout", ["yolov8", "yolov5", "end2end", "rf-detr", "rt-detr"])
def test_retinanet_as_a_file_finds_what_torch_finds(tmp_path: Path, layout: str) -> None:
    side, least = 128, 0.1
    images = squares(side)
    inputs = torch.stack([torch.from_numpy(image.pixels).permute(2, 0, 1).float() / 255 for image in images])
    network = calibrated(RetinaNetBoxes(side), inputs)
    file = export(
        UnderLayout(network, layout, (side, side)), tmp_path / "r.onnx", (side, side), layout=layout
    )
    spec = DetectorSpec(
        model=str(file),
        layout=layout,
        categories=["a", "b", "c"],
        input=InputSpec(mean=0, std=1),
        score_threshold=least,
        **({"nms_iou": 0.5} if layout.startswith("yolo") else {}),  # type: ignore[arg-type]
    )
    ours = Alone(load(spec), 1)(images)
    found = 0
    for number, result in enumerate(ours):
        with torch.inference_mode():
            boxes, scores = (it[0] for it in network(inputs[number : number + 1]))
        if layout == "yolov5":
            scores = scores * 0.5
        best, labels = scores.max(dim=1)
        if layout == "rf-detr":
            best, pairs = scores.flatten().sort(descending=True)
            best, labels, boxes = best[:300], pairs[:300] % 3, boxes[pairs[:300] // 3]
        kept = best > least
        best, labels, boxes = best[kept], labels[kept], boxes[kept]
        order = best.argsort(descending=True, stable=True)
        if layout.startswith("yolo"):
            order = batched_nms(boxes, best, labels, 0.5)
        inside = boxes[order].clamp(0, side)
        whole = ((inside[:, 2:] - inside[:, :2]) > 0).all(dim=1)
        assert isinstance(result, Detections)
        np.testing.assert_allclose(result.scores, best[order][whole].numpy(), atol=1e-3)
        np.testing.assert_allclose(
            np.sort(result.boxes, axis=0), np.sort(inside[whole].numpy(), axis=0), atol=0.1
        )
        assert sorted(result.class_ids) == sorted(labels[order][whole].tolist())
        found += len(result.scores)
    assert found >= 9
