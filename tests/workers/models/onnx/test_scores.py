"""Classifiers, taggers and embedders in ONNX files: which output, which scores, which input."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from schemas.exceptions import ImageError, ModelError
from schemas.images import Classification
from schemas.tasks import ClassifierSpec, EmbedderSpec, InputSpec, TaggerSpec
from tests.workers.models.alone import Alone
from tests.workers.models.onnx.exports import model_of, saved, ultralytics, with_metadata
from tests.workers.models.onnx.test_detector import exported
from tests.workers.models.pictures import noise
from workers.models.registry import explain, load

NAMES = ("red", "green", "blue", "dark")
WEIGHTS = np.array([[4, 0, 0, -1], [0, 4, 0, -1], [0, 0, 4, -1]], np.float32)
PLAIN = InputSpec(size=8, scale=255)
IMAGES = [noise(seed, 20 + seed, 40) for seed in range(3)]


def file_of(
    folder: Path,
    *last: str | onnx.NodeProto,
    channels_last: bool = False,
    batch: int | str = "n",
    dtype: int = TensorProto.FLOAT,
    values: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> str:
    """The mean colour of an image times `WEIGHTS`, then some operators, by name or with what they need."""
    shape: Sequence[int | str] = [batch, 8, 8, 3] if channels_last else [batch, 3, 8, 8]
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node(
            "ReduceMean", ["floats"], ["row"], axes=[1, 2] if channels_last else [2, 3], keepdims=0
        ),
        helper.make_node("MatMul", ["row", "weights"], ["out0"]),
    ]
    for number, operator in enumerate(last):
        node = helper.make_node(operator, [], []) if isinstance(operator, str) else operator
        node.input.insert(0, f"out{number}")
        node.output.append(f"out{number + 1}")
        nodes.append(node)
    given = {"weights": WEIGHTS, **(values or {})}
    model = model_of(nodes, {"images": shape}, {f"out{len(last)}": [batch, 4]}, given, dtype=dtype)
    return str(saved(model, folder / "a.onnx"))


def logits() -> np.ndarray[Any, Any]:
    """What the networks answer before their last operators, for the centre of each image."""
    means = []
    for image in IMAGES:
        resized = load_input(image)
        means.append(resized.mean(axis=(1, 2)))
    return np.array(means) @ WEIGHTS


def load_input(image: Any) -> np.ndarray[Any, Any]:
    from PIL import Image

    height, width = image.pixels.shape[:2]
    short = (8, int(8 * width / height)) if height < width else (int(8 * height / width), 8)
    resized = np.asarray(Image.fromarray(image.pixels).resize(short[::-1], Image.Resampling.BILINEAR))
    top, left = round((short[0] - 8) / 2), round((short[1] - 8) / 2)
    cropped: np.ndarray[Any, Any] = resized[top : top + 8, left : left + 8].transpose(2, 0, 1) / 255
    return cropped


def softmax(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    powers: np.ndarray[Any, Any] = np.exp(values)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def sigmoid(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    scores: np.ndarray[Any, Any] = 1 / (1 + np.exp(-values))
    return scores


def scores(spec: ClassifierSpec, batch: int = 1) -> np.ndarray[Any, Any]:
    """The scores of each image by class id."""
    found = []
    for result in Alone(load(spec), batch)(IMAGES):
        assert isinstance(result, Classification)
        found.append(result.scores[np.argsort(result.label_ids)])
    return np.array(found)


def spec_of(model: str, **more: Any) -> ClassifierSpec:
    return ClassifierSpec(**{"model": model, "categories": list(NAMES), "input": PLAIN, **more})


@pytest.mark.parametrize("batch", ["n", 1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_logits_become_scores_as_the_spec_says_whatever_the_batch(
    tmp_path: Path, batch: int | str, size: int
) -> None:
    file = file_of(tmp_path, batch=batch)
    np.testing.assert_allclose(scores(spec_of(file), size), softmax(logits()), atol=1e-5)
    several = spec_of(file, score_type="sigmoid")
    np.testing.assert_allclose(scores(several, size), sigmoid(logits()), atol=1e-5)


@pytest.mark.parametrize("last", [("Softmax",), ("Softmax", "Identity"), ("Sigmoid",)])
def test_a_graph_that_ends_in_scores_gets_no_second_softmax(tmp_path: Path, last: tuple[str, ...]) -> None:
    file = file_of(tmp_path, *last)
    expected = softmax(logits()) if last[0] == "Softmax" else sigmoid(logits())
    for stated in (None, "none"):
        np.testing.assert_allclose(scores(spec_of(file, score_type=stated)), expected, atol=1e-5)
    message = (
        f"score_type: found softmax, but a.onnx ends in a {last[0].lower()}, and a second one would flatten"
    )
    with pytest.raises(ModelError, match=message):
        load(spec_of(file, score_type="softmax"))


AFTER: dict[str, Callable[[], list[onnx.NodeProto]]] = {
    "dropout": lambda: [helper.make_node("Dropout", [], [])],
    "bounds": lambda: [helper.make_node("Clip", ["least", "most"], [])],
    "half precision": lambda: [
        helper.make_node("Cast", [], [], to=TensorProto.FLOAT16),
        helper.make_node("CastLike", ["least"], []),
    ],
    "another shape": lambda: [
        helper.make_node("Reshape", ["shape"], []),
        helper.make_node("Transpose", [], [], perm=[1, 0, 2]),
        helper.make_node("Squeeze", ["one"], []),
    ],
    "eight bits": lambda: [
        helper.make_node("QuantizeLinear", ["step", "zero"], []),
        helper.make_node("DequantizeLinear", ["step", "zero"], []),
    ],
}
"""What leaves scores as they are, after the operator that makes them."""

VALUES: dict[str, np.ndarray[Any, Any]] = {
    "least": np.array(1e-6, np.float32),
    "most": np.array(1 - 1e-6, np.float32),
    "shape": np.array([1, -1, 4], np.int64),
    "one": np.array([1], np.int64),
    "step": np.array(1 / 255, np.float32),
    "zero": np.array(0, np.uint8),
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("last", ["Softmax", "Sigmoid"])
def test_what_leaves_scores_as_they_are_hides_no_softmax(tmp_path: Path, last: str, after: str) -> None:
    file = file_of(tmp_path, last, *AFTER[after](), values=VALUES)
    expected = softmax(logits()) if last == "Softmax" else sigmoid(logits())
    tolerance = {"half precision": 1e-3, "eight bits": 3e-3}.get(after, 1e-5)
    np.testing.assert_allclose(scores(spec_of(file)), expected, atol=tolerance)
    loaded = load(spec_of(file))
    assert (loaded.model.score_type, loaded.model.exclusive) == ("none", last == "Softmax")


def test_a_softmax_that_the_graph_does_not_show_must_be_stated(tmp_path: Path) -> None:
    """As older exporters write one: powers, divided by their sum."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["row"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
        helper.make_node("Exp", ["logits"], ["powers"]),
        helper.make_node("ReduceSum", ["powers", "axis"], ["sum"], keepdims=1),
        helper.make_node("Div", ["powers", "sum"], ["out"]),
    ]
    values: dict[str, np.ndarray[Any, Any]] = {"weights": WEIGHTS, "axis": np.array([1], np.int64)}
    model = model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 4]}, values)
    file = str(saved(model, tmp_path / "a.onnx"))
    with pytest.raises(
        ModelError,
        match=r"^a\.onnx does not say whether its answers are scores: they are from 0 to 1 and add up to 1, "
        r".*; add `score_type: none`, or `score_type: softmax` if they are logits$",
    ):
        load(spec_of(file))
    assert load(EmbedderSpec(model=file, input=PLAIN)).resolved.width == 4
    stated = spec_of(file, score_type="none")
    np.testing.assert_allclose(scores(stated), softmax(logits()), atol=1e-5)
    assert load(stated).model.exclusive
    np.testing.assert_allclose(
        scores(spec_of(file, score_type="softmax")), softmax(softmax(logits())), atol=1e-5
    )
    assert "  score_type: none  # or softmax, if its answers are logits\n" in explain(file).spec


def test_a_softmax_over_yes_and_no_for_each_label_is_not_one_over_the_labels(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["pairs"], []),
        helper.make_node("Softmax", [], [], axis=2),
        helper.make_node("Reshape", ["whole"], []),
    ]
    values = {"pairs": np.array([-1, 2, 2], np.int64), "whole": np.array([-1, 4], np.int64)}
    loaded = load(spec_of(file_of(tmp_path, *nodes, values=values)))
    assert (loaded.model.score_type, loaded.model.exclusive) == ("none", False)


def test_answers_that_are_no_scores_are_refused_where_they_should_be(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    with pytest.raises(
        ModelError, match=r"a\.onnx: its answers are no scores from 0 to 1: found -1\.\d+ to 1\.\d+; "
    ):
        load(spec_of(file, score_type="none"))


def test_an_image_whose_answers_are_no_scores_fails_alone(tmp_path: Path) -> None:
    """The network answers 2 where an image is all white, which noise never is."""
    nodes = [
        helper.make_node("ReduceMin", ["images"], ["least"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Floor", ["least"], ["white"]),
        helper.make_node("Unsqueeze", ["white", "one"], ["column"]),
        helper.make_node("Add", ["column", "half"], ["out"]),
    ]
    values: dict[str, np.ndarray[Any, Any]] = {
        "one": np.array([1], np.int64),
        "half": np.full((1, 4), 0.5, np.float32),
    }
    model = model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 4]}, values)
    loaded = load(spec_of(str(saved(model, tmp_path / "a.onnx")), score_type="none"))
    white = noise(0)
    white.pixels[:] = 255
    good, bad = Alone(loaded, 2)([IMAGES[0], white])
    assert isinstance(good, Classification)
    assert isinstance(bad, ImageError)
    assert "its answers are no scores from 0 to 1: found 1.5 to 1.5" in bad.message


def test_an_input_may_have_its_channels_last_and_be_of_whole_numbers(tmp_path: Path) -> None:
    expected = softmax(logits())
    np.testing.assert_allclose(scores(spec_of(file_of(tmp_path, channels_last=True))), expected, atol=1e-5)
    file = file_of(tmp_path, dtype=TensorProto.FLOAT16)
    np.testing.assert_allclose(scores(spec_of(file)), expected, atol=2e-3)
    file = file_of(tmp_path, dtype=TensorProto.UINT8)
    whole = scores(spec_of(file, input=InputSpec(size=8, scale=1), score_type="sigmoid"))
    np.testing.assert_allclose(whole, sigmoid(logits() * 255), atol=1e-4)


def test_fractions_for_whole_numbers_are_refused(tmp_path: Path) -> None:
    file = file_of(tmp_path, dtype=TensorProto.UINT8)
    with pytest.raises(
        ModelError, match=r"input: makes fractions, but a\.onnx takes whole numbers from 0 to 255"
    ):
        load(spec_of(file, input=PLAIN))


def test_taggers_take_them_too(tmp_path: Path) -> None:
    spec = TaggerSpec(
        model=file_of(tmp_path, "Sigmoid"), categories=list(NAMES), input=PLAIN, score_threshold=0.5
    )
    for result, row in zip(Alone(load(spec), 1)(IMAGES), sigmoid(logits()), strict=True):
        assert (
            set(result.label_ids) == {number for number, score in enumerate(row) if score > 0.5} == {0, 1, 2}
        )


def test_an_embedder_gives_the_rows_of_its_output(tmp_path: Path) -> None:
    nodes = [helper.make_node("GlobalAveragePool", ["images"], ["out"])]
    model = model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 3, 1, 1]})
    spec = EmbedderSpec(model=str(saved(model, tmp_path / "a.onnx")), normalize=False, input=PLAIN)
    loaded = load(spec)
    assert loaded.resolved.width == 3
    found = np.array(Alone(loaded, 2)(IMAGES))
    expected = np.array([load_input(image).mean(axis=(1, 2)) for image in IMAGES])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_ultralytics_metadata_says_all_that_is_to_be_known(tmp_path: Path) -> None:
    file = file_of(tmp_path, "Softmax")
    with_metadata(Path(file), ultralytics(NAMES, "classify", imgsz="[8, 8]"))
    loaded = load(ClassifierSpec(model=file))
    assert (loaded.model.categories, loaded.model.score_type) == (NAMES, "none")
    assert loaded.resolved.preprocessing.startswith("size: 8, crop: [8, 8], interpolation: bilinear")
    np.testing.assert_allclose(scores(ClassifierSpec(model=file)), softmax(logits()), atol=1e-5)


def test_names_that_a_file_has_twice_count_as_one_and_are_told(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    with_metadata(Path(file), {"names": str(["crane", "tabby", "crane", "dog"])})
    loaded = load(spec_of(file, categories=None, class_thresholds={"crane": 0.9}, score_threshold=0.1))
    assert loaded.resolved.classes == ("crane", "tabby", "dog")
    assert loaded.resolved.notes == (
        f"{file} has one name for several classes, which count as one in the tables: 'crane' (0, 2); state "
        "`categories:` to tell them apart",
    )
    assert load(spec_of(file)).resolved.notes == ()
    (tmp_path / "map.yaml").write_text("crane: bird")
    mapped = spec_of(file, categories=None, class_map=str(tmp_path / "map.yaml"))
    assert load(mapped).resolved.notes == ()


def test_a_file_that_does_not_say_how_it_was_trained_is_refused_with_lines_to_add(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    for given, lacking in (
        (None, ""),
        (InputSpec(size=8), ", and `input` has size but none of scale, mean and std"),
        (
            InputSpec(crop=8, channels="bgr"),
            ", and `input` has crop, channels but none of scale, mean and std",
        ),
    ):
        with pytest.raises(ModelError) as caught:
            load(spec_of(file, input=given))
        assert str(caught.value) == (
            f"a.onnx does not say how images become its input{lacking}; add what it was trained with, for "
            "most networks of ImageNet:\n  classifier:\n    model: a.onnx\n    input: {size: 9, crop: 8, "
            "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"size": 7}, "input: found a crop of 8x8 from 7x7; allowed: at most the size; write a size of 8 "),
        (
            {"size": [7, 9], "crop": 8},
            "input: found a crop of 8x8 from 7x9; allowed: at most the size; write",
        ),
    ],
)
def test_a_size_that_its_crop_does_not_fit_is_refused(tmp_path: Path, given: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"^{message}"):
        load(spec_of(file_of(tmp_path), input=InputSpec(scale=255, **given)))


def test_an_input_of_another_size_than_the_files_is_refused(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    for given in (InputSpec(size=[9, 9], scale=255), InputSpec(size=9, crop=7, scale=255)):
        with pytest.raises(ModelError, match=r"input: makes .*, but a\.onnx takes 8x8 \(height x width\)"):
            load(spec_of(file, input=given))


def test_a_wrong_number_of_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"categories: found 2 class names, but a\.onnx has 4 classes"):
        load(spec_of(file_of(tmp_path), categories=["a", "b"]))


def test_of_several_outputs_the_command_keeps_the_one_that_has_the_categories(tmp_path: Path) -> None:
    file = two_outputs(tmp_path / "it's two.onnx")
    with pytest.raises(ModelError) as caught:
        load(spec_of(str(file), categories=list(NAMES)))
    said, command = str(caught.value).split("\n")
    assert said == (
        "it's two.onnx does not say which output is a classifier's: found the outputs 'mean' (1, 3, 1, 1), "
        "'logits' (1, 4); cut it to one, and name the new file; to 'logits', which has as many numbers as "
        "there are categories:"
    )
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    cut = spec_of(f"{tmp_path}/it's two-cut.onnx", categories=list(NAMES))
    np.testing.assert_allclose(scores(cut), softmax(logits()), atol=1e-5)
    with pytest.raises(
        ModelError, match=r"is an embedder's: .*; to 'mean', if that is the one:\n  python -c "
    ):
        load(EmbedderSpec(model=str(file), input=PLAIN))


def two_outputs(file: Path) -> Path:
    """A file of features and logits."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
    ]
    outputs: dict[str, list[int | str]] = {"mean": ["n", 3, 1, 1], "logits": ["n", 4]}
    return saved(model_of(nodes, {"images": ["n", 3, 8, 8]}, outputs, {"weights": WEIGHTS}), file)


@pytest.mark.parametrize("given", [None, PLAIN])
@pytest.mark.parametrize("kind", [ClassifierSpec, TaggerSpec, EmbedderSpec])
@pytest.mark.parametrize("layout", ["yolov8", "yolox", "rf-detr", "rt-detr"])
def test_a_detector_named_as_something_else_is_told_before_what_it_lacks(
    tmp_path: Path, layout: str, kind: Any, given: InputSpec | None
) -> None:
    file = exported(tmp_path, layout)
    section = "embedder" if kind is EmbedderSpec else "classifier"
    layouts = "yolov5 or yolox" if layout == "yolox" else layout
    with pytest.raises(ModelError) as caught:
        load(kind(model=str(file), input=given))
    assert str(caught.value).startswith(f"{file.name} is no {section}: found the output")
    assert str(caught.value).endswith(
        f"; allowed: one output (n, numbers). It is a detector ({layouts}): name it under `detector:`"
    )


def test_a_detector_is_no_classifier(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["images"], ["out"])]
    file = str(saved(model_of(nodes, {"images": [1, 3, 8, 8]}, {"out": [1, 3, 8, 8]}), tmp_path / "a.onnx"))
    message = r"a\.onnx is no classifier: found the output 'out' \(1, 3, 8, 8\).* If it is a detector, name"
    for given in (None, PLAIN):
        with pytest.raises(ModelError, match=message):
            load(spec_of(file, input=given))


def test_scores_of_a_softmax_inside_add_up_by_a_class_map_and_those_of_a_sigmoid_do_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "map.yaml").write_text("red: warm\ngreen: warm\n")
    found = {}
    for last in ("Softmax", "Sigmoid"):
        (tmp_path / last).mkdir()
        spec = ClassifierSpec(
            model=file_of(tmp_path / last, last),
            categories=list(NAMES),
            class_map=str(tmp_path / "map.yaml"),
            input=PLAIN,
            top_k=4,
        )
        result = Alone(load(spec), 1)(IMAGES[:1])[0]
        assert isinstance(result, Classification)
        found[last] = dict(zip(result.label_ids.tolist(), result.scores.tolist(), strict=True))
    (values,) = logits()[:1]
    shares, alone = np.exp(values) / np.exp(values).sum(), 1 / (1 + np.exp(-values))
    warm = int(np.argmax(values[:2]))
    assert found["Softmax"][warm] == pytest.approx(shares[:2].sum(), abs=0.01)
    assert found["Sigmoid"][warm] == pytest.approx(alone[:2].max(), abs=0.01)


def test_logits_of_one_class_become_scores_by_a_sigmoid(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["row"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["row", "weights"], ["out"]),
    ]
    shape: list[int | str] = ["n", 3, 8, 8]
    file = saved(
        model_of(nodes, {"images": shape}, {"out": ["n", 1]}, {"weights": WEIGHTS[:, :1].copy()}),
        tmp_path / "a.onnx",
    )
    loaded = load(ClassifierSpec(model=str(file), categories=["red"], input=PLAIN))
    result = Alone(loaded, 1)(IMAGES[:1])[0]
    assert isinstance(result, Classification)
    assert result.scores[0] == pytest.approx(1 / (1 + np.exp(-logits()[0, 0])), abs=0.01)
    assert loaded.resolved.settings["score_type"] == "sigmoid"


def test_what_keeps_an_images_shape_is_refused_for_a_classifier(tmp_path: Path) -> None:
    spec = ClassifierSpec(
        model=file_of(tmp_path),
        categories=list(NAMES),
        input=InputSpec(size=8, scale=255, letterbox="square"),
    )
    with pytest.raises(
        ModelError, match=r"^input: found letterbox, which .*a\.onnx cannot use; allowed: size, crop"
    ):
        load(spec)
