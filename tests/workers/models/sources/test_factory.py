import dataclasses
import hashlib
import importlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from schemas.exceptions import ModelError
from schemas.images import Classification, Detections
from schemas.models import ResolvedModel
from schemas.tasks import ClassifierSpec, DetectorSpec, EmbedderSpec
from tests.conftest import ROOT
from tests.workers.models.alone import Alone
from tests.workers.models.pictures import noise
from workers.decode.decode import decode
from workers.models.model import versions
from workers.models.registry import load
from workers.models.runtime import export_onnx
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
def documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with the models of the documentation."""
    name = "documented_models"
    pages = [(ROOT / page).read_text() for page in ("README.md", "docs/models.md")]
    blocks = re.findall(r"^```python\n(.*?)^```", "".join(pages), re.MULTILINE | re.DOTALL)
    models = [block for block in blocks if "Model(" in block and "import torch" in block]
    (tmp_path / f"{name}.py").write_text("\n".join(models))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_the_models_of_the_documentation_label_photos(documented: str, photos: Path) -> None:
    images = [decode((photos / name).read_bytes(), max_pixels=10**8) for name in ("rocket.jpg", "china.jpg")]
    sky = Alone(load(ClassifierSpec(model=f"{documented}:sky")), 2)(images)
    lights = Alone(load(DetectorSpec(model=f"{documented}:lights")), 2)(images)
    assert all(isinstance(result, Classification) for result in sky)
    for image, result in zip(images, lights, strict=True):
        assert isinstance(result, Detections)
        ((x1, y1, x2, y2),) = result.boxes.tolist()
        assert 0 <= x1 < x2 <= image.pixels.shape[1]
        assert 0 <= y1 < y2 <= image.pixels.shape[0]
        assert image.pixels[int(y1) : int(y2), int(x1) : int(x2)].max() > 250
    colours = Alone(load(EmbedderSpec(model=f"{documented}:colours", normalize=False)), 2)(images)
    for image, vector in zip(images, colours, strict=True):
        expected = image.pixels.mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(vector.reshape(3, 4).mean(axis=1), expected, atol=0.02)


def test_a_classifier_of_ones_own_is_an_embedder_where_it_says_what_its_features_are(documented: str) -> None:
    with pytest.raises(ModelError, match="is a classifier that does not say what its features are"):
        load(EmbedderSpec(model=f"{documented}:sky"))
    with pytest.raises(ModelError, match="returned a DetectorModel; expected an EmbedderModel"):
        load(EmbedderSpec(model=f"{documented}:lights"))
    module = sys.modules[documented]
    wide = vars(module)["colours"]
    both = [load(kind(model=f"{documented}:bright")).model.width for kind in (ClassifierSpec, EmbedderSpec)]
    assert both == [12, 12]
    vars(module)["colours"] = lambda: dataclasses.replace(wide(), width=0)
    with pytest.raises(ModelError, match="colours: its width is 0; allowed: how many numbers"):
        load(EmbedderSpec(model=f"{documented}:colours"))


FEATURES = """
import torch
from workers.models.model import ClassifierModel


class Both(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head
        self.drop = torch.nn.Dropout(0.9)

    def forward(self, batch):
        features = self.drop(batch.mean(dim=(2, 3)))
        return self.head(features), features


def build(twin: bool = True, one: bool = False, width: int = 3) -> ClassifierModel:
    head = torch.nn.Linear(3, 2)
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    both = Both(head if twin else torch.nn.Linear(3, 2))
    return ClassifierModel(
        module=module,
        transform=lambda image: image[:, :64, :64] / 255,
        categories=("a", "b"),
        with_features=module if one else both,
        width=width,
    )
"""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"twin": False}, r"its answers are off by \d.*, of up to \d"),
        ({"one": True}, r"it returns no pair \(logits, features\)"),
        ({"width": 4}, r"its features are \(1, 3\), expected \(1, 4\)"),
    ],
)
def test_features_of_another_network_than_the_classifiers_are_refused(
    own: Path, options: dict[str, int], reason: str
) -> None:
    (own / "with_features.py").write_text(FEATURES)
    embedding = Alone(load(EmbedderSpec(model="with_features:build", normalize=False)), 1)([noise(1)])[0]
    np.testing.assert_allclose(embedding, noise(1).pixels[:64, :64].mean(axis=(0, 1)) / 255, atol=1e-6)
    message = rf"with_features:build: with_features must return the pair \(logits, features\), .*: {reason}"
    with pytest.raises(ModelError, match=message):
        load(EmbedderSpec(model="with_features:build", options=options))
    assert load(ClassifierSpec(model="with_features:build", options=options)).model.with_features
    with pytest.raises(ModelError, match="its width is None; allowed: how many numbers"):
        load(EmbedderSpec(model="with_features:build", options={"width": None}))


BEHIND = {
    "__init__.py": "",
    "main.py": """
import json
import random
from pathlib import Path

import numpy as np
import torch

from behind import helper
from workers.models.model import ClassifierModel

HERE = Path(__file__).parent
SCALE = json.loads((HERE / "scale.json").read_text())
CALLS = []


class Head(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.width = width
        self.drawn = [random.random(), np.random.rand(), str(HERE), HERE, CALLS.append]
        self.register_buffer("mean", torch.tensor(0.5), persistent=False)

    def forward(self, images):
        return self.linear(images.mean(dim=(2, 3))) * SCALE["by"] + helper.shift()


def build(weights=None, *, width: int = 1, places: int = 1, out_of: str = "") -> ClassifierModel:
    head = Head(width)
    head.linear.weight.data = torch.load(HERE / "hidden.pth")["weight"]
    if weights:
        head.linear.bias.data.fill_(float(Path(weights).read_bytes()[0]))
    by = np.array(json.loads((HERE / "by.json").read_text()))
    return ClassifierModel(
        module=head,
        transform=lambda image: torch.round(image * by, decimals=places),
        categories=("a", "b"),
        files=(HERE / "classes.txt",),
    )
""",
    "helper.py": """
def shift():
    from behind import lazy

    return lazy.SHIFT
""",
    "lazy.py": "SHIFT = 1",
    "unrelated.py": "UNRELATED = 1",
    "scale.json": '{"by": 2}',
    "by.json": "[1.0]",
    "classes.txt": "a\\nb",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the module path with the documentation's my_models.py and a my_detectors.py."""
    documented = (factory.__doc__ or "").split("my_models.py:\n")[1].split("\nand in the job spec")[0]
    (tmp_path / "my_models.py").write_text(textwrap.dedent(documented), encoding="utf-8")
    (tmp_path / "my_detectors.py").write_text(DETECTOR, encoding="utf-8")
    (tmp_path / "behind").mkdir()
    for name, content in BEHIND.items():
        (tmp_path / "behind" / name).write_text(content, encoding="utf-8")
    torch.save({"weight": torch.ones(2, 3)}, tmp_path / "behind" / "hidden.pth")
    (tmp_path / "any.bin").write_bytes(b"\x05")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else a file changed within a second goes unseen
    for name in ("my_models", "my_detectors", "behind"):  # of another test's folder, which is gone
        monkeypatch.delitem(sys.modules, name, raising=False)
    forget(tmp_path)
    yield tmp_path
    forget(tmp_path)


def forget(folder: Path) -> None:
    """Makes the next import of a module of this folder read its file, as a new process does."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


def test_the_documented_example_tells_blue_photos_from_others(own: Path) -> None:
    loaded = load(ClassifierSpec(model="my_models:sky"))
    blue, red = noise(1), noise(2)
    blue.pixels[..., :2] = 0
    red.pixels[..., 1:] = 0
    found = Alone(loaded, 4)([blue, red])
    best = [loaded.model.categories[x.label_ids[0]] for x in found if isinstance(x, Classification)]
    assert best == ["sky", "other"]
    assert loaded.resolved.code == f"my_models:sky, {versions('torch')}"
    assert loaded.resolved.parts.keys() == {"source of my_models", "module", "transform"}
    digest = hashlib.sha256((own / "my_models.py").read_bytes()).hexdigest()
    assert loaded.resolved.parts["source of my_models"] == digest
    assert " at 0x" not in loaded.resolved.preprocessing


@pytest.mark.usefixtures("own")
def test_a_detector_of_ones_own_gives_boxes_in_pixels_of_the_image() -> None:
    loaded = load(DetectorSpec(model="my_detectors:middle", class_thresholds={"middle": 0.7}))
    (found,) = Alone(loaded, 4)([noise(1, height=40, width=60)])
    assert isinstance(found, Detections)
    assert found.boxes.tolist() == [[15, 10, 30, 20]]
    assert found.class_ids.tolist() == [1]


def test_weights_and_names_of_the_spec_take_the_place_of_the_factorys(own: Path) -> None:
    loaded = load(ClassifierSpec(model="my_models:sky"))
    state = loaded.model.module.state_dict()
    torch.save({key: -value for key, value in state.items()}, own / "minus.pth")
    other = load(ClassifierSpec(model="my_models:sky", weights=str(own / "minus.pth"), categories=["x", "y"]))
    assert torch.equal(other.model.module.state_dict()["2.weight"], -state["2.weight"])
    assert other.model.categories == ("x", "y")


def resolved(own: Path, **settings: Any) -> ResolvedModel:
    """What a process that has imported nothing of the user's builds."""
    forget(own)
    spec = {"model": "behind.main:build", "weights": str(own / "any.bin"), **settings}
    return load(ClassifierSpec.model_validate(spec)).resolved


def test_two_processes_in_two_folders_build_one_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolved(own)
    (own / "elsewhere").mkdir()
    for path in (own / "behind", own / "any.bin"):
        shutil.move(path, own / "elsewhere" / path.name)
    monkeypatch.syspath_prepend(own / "elsewhere")
    second = resolved(own, weights=str(own / "elsewhere" / "any.bin"))
    assert second.parts == first.parts
    assert first.parts.keys() == {
        *("source of behind", "source of behind.main", "source of behind.helper", "source of behind.lazy"),
        *("module", "transform", "file 1, classes.txt", "version of numpy"),
    }
    assert first.parts["version of numpy"] == np.__version__


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("behind/hidden.pth", "module"),
        ("behind/scale.json", "module"),
        ("behind/by.json", "transform"),
        ("behind/classes.txt", "file 1, classes.txt"),
        ("behind/helper.py", "source of behind.helper"),
        ("behind/lazy.py", "source of behind.lazy"),
        ("behind/main.py", "source of behind.main"),
        ("any.bin", "module"),
        ("behind/unrelated.py", None),
    ],
)
def test_whatever_lies_behind_a_factory_is_in_its_fingerprint(own: Path, file: str, part: str | None) -> None:
    before = resolved(own)
    if file.endswith(".pth"):
        torch.save({"weight": torch.full((2, 3), 1.001)}, own / file)
    elif file.endswith(".bin"):
        (own / file).write_bytes(b"\x06")
    else:
        text = (own / file).read_text(encoding="utf-8")
        (own / file).write_text({"[1.0]": "[1.5]", '{"by": 2}': '{"by": 3}'}.get(text, text + "\n"))
    after = resolved(own)
    changed = {key for key in before.parts | after.parts if before.parts.get(key) != after.parts.get(key)}
    assert changed == {part} - {None}
    assert (before.fingerprint != after.fingerprint) == (part is not None)
    assert (before.weights_sha256 != after.weights_sha256) == (file == "any.bin")


def test_options_are_the_factorys_keyword_arguments_and_in_its_fingerprint(own: Path) -> None:
    plain, wide, placed = (
        resolved(own),
        resolved(own, options={"width": 2}),
        resolved(own, options={"places": 2}),
    )
    assert wide.settings == {"top_k": 5, "score_type": "softmax", "options": {"width": 2}}
    assert wide.parts["module"] != plain.parts["module"] == placed.parts["module"]
    assert placed.parts["transform"] != plain.parts["transform"] == wide.parts["transform"]
    assert len({plain.fingerprint, wide.fingerprint, placed.fingerprint}) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"options": {"widht": 2}},
            "behind.main:build: got an unexpected keyword argument 'widht'; it takes options: width, places, "
            "out_of, and `weights: FILE`",
        ),
        ({"options": {"weights": "x"}}, "options: found weights; write `weights: FILE` beside"),
        ({"sha256": "0" * 64}, "another sha256"),
        ({"weights": "/no/such/file.bin"}, "the weights file /no/such/file.bin cannot be read: No such file"),
    ],
)
def test_arguments_that_a_factory_cannot_take_are_refused(
    own: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        resolved(own, **settings)


def test_options_for_a_model_that_is_no_factory_are_refused() -> None:
    with pytest.raises(
        ValueError, match="options: found width for resnet50; allowed: for a model of your own"
    ):
        ClassifierSpec(model="resnet50", options={"width": 2})


def test_weights_in_a_store_are_handed_over_as_a_file(own: Path) -> None:
    with fsspec.open("memory://models/x.bin?", "wb") as file:
        file.write(b"\x05")
    near, far = resolved(own), resolved(own, weights="memory://models/x.bin?")
    assert far.parts == near.parts
    assert far.weights_sha256 == near.weights_sha256 == hashlib.sha256(b"\x05").hexdigest()
    assert far.weights == "memory://models/x.bin?"


def test_a_factory_that_changes_the_working_directory_does_not_move_it(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "moving.py").write_text(
        "import os, tempfile\nfrom my_models import sky\n\n\ndef build():\n"
        "    with tempfile.TemporaryDirectory() as folder:\n        os.chdir(folder)\n    return sky()\n"
    )
    monkeypatch.chdir(own)
    load(ClassifierSpec(model="moving:build"))
    assert os.getcwd() == str(own)


def test_imports_that_never_work_here_do_no_harm(own: Path) -> None:
    (own / "newer.py").write_text("match = ]")
    (own / "tolerant.py").write_text(
        "try:\n    from newer import f\nexcept SyntaxError:\n    f = None\n\n"
        "def later():\n    from ..beyond import y\n\n\nfrom my_models import sky\n"
    )
    resolved = load(ClassifierSpec(model="tolerant:sky")).resolved
    assert {f"source of {name}" for name in ("tolerant", "newer", "my_models")} < resolved.parts.keys()


@pytest.mark.usefixtures("own")
def test_a_folder_that_cannot_be_read_is_returned_to(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[object, ...]] = []
    real = os.open

    def noted(*arguments: Any) -> int:
        opened.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(os, "open", noted)
    load(ClassifierSpec(model="my_models:sky"))
    assert (".", os.O_PATH | os.O_DIRECTORY) in opened


SESSION = """
import onnxruntime
import torch
from workers.models.model import ClassifierModel


class Net(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        self.session = onnxruntime.InferenceSession(path)


def hidden(name="a"):
    return ClassifierModel(module=Net("net.onnx"), transform=abs, categories=(name,))


def named():
    return ClassifierModel(module=Net("net.onnx"), transform=abs, categories=("a",), files=("net.onnx",))


def given(weights):
    return ClassifierModel(module=Net(weights), transform=abs, categories=("a",))
"""


def test_a_model_made_from_a_file_is_known_by_it_or_refused(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own)
    (own / "sessions.py").write_text(SESSION)
    seen = set()
    for bias in (1.0, 2.0):
        network = torch.nn.Conv2d(3, 1, 1)
        torch.nn.init.constant_(network.weight, 1)
        network.bias = torch.nn.Parameter(torch.tensor([bias]))
        (own / "net.onnx").write_bytes(export_onnx(network, torch.zeros(1, 3, 4, 4)))
        message = r"sessions:hidden.*it holds session, a onnxruntime.*InferenceSession.*`files=\(...\)`"
        with pytest.raises(ModelError, match=message):
            load(ClassifierSpec(model="sessions:hidden"))
        for spec in ({"model": "sessions:named"}, {"model": "sessions:given", "weights": "net.onnx"}):
            seen.add(load(ClassifierSpec.model_validate(spec)).resolved.fingerprint)
    assert len(seen) == 4


def test_a_blank_class_name_of_a_factorys_is_refused(own: Path) -> None:
    (own / "blank.py").write_text(SESSION.replace('Net("net.onnx")', "torch.nn.Identity()"))
    message = "blank:hidden: its categories: name 1 is blank"
    with pytest.raises(ModelError, match=message):
        load(ClassifierSpec(model="blank:hidden", options={"name": " "}))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no_such_module:model", "cannot import no_such_module .* PYTHONPATH"),
        ("my_detectors:nobody", "has no function 'nobody'"),
        ("my_detectors:broken", "the factory failed .*no such disk"),
        ("my_detectors:wrong", "returned an int; expected a DetectorModel"),
        ("my_models:sky", "returned a ClassifierModel; expected a DetectorModel"),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_is_no_factory_of_a_detector_is_refused(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(DetectorSpec(model=model))


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("nms_iou", 0.5, "gives an object one box by itself; .* attribute `nms_thresh`"),
        ("sha256", "0" * 64, "brings its own weights"),
    ],
)
def test_settings_that_a_factory_cannot_honour_are_refused(key: str, value: object, message: str) -> None:
    spec = DetectorSpec(model="my_detectors:middle").model_copy(update={key: value})
    with pytest.raises(ModelError, match=message):
        load(spec)
