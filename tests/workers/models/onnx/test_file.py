"""Files that are no ONNX files, damaged, hostile, or need what is not there: one sentence each."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec
from tests.workers.models.onnx.exports import model_of, saved
from workers.models.onnx.file import read_onnx
from workers.models.registry import load

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)


def small(**more: Any) -> onnx.ModelProto:
    """The mean colour of an image times some weights: four numbers."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["out"]),
    ]
    return model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 4]}, {"weights": WEIGHTS}, **more)


def refused(file: Path | str, **spec: object) -> str:
    """What a classifier of a file is refused with, in one line."""
    with pytest.raises(ModelError) as raised:
        load(ClassifierSpec(model=str(file), categories=list("abcd"), input={"scale": 255}, **spec))  # type: ignore[arg-type]
    return str(raised.value)


def test_what_a_file_says_of_itself_is_read(tmp_path: Path) -> None:
    model = small()
    helper.set_model_props(model, {"author": "us"})
    file = saved(model, tmp_path / "a.onnx")
    read = read_onnx(str(file))
    assert (read.location, read.name, read.opset) == (str(file), "a.onnx", 17)
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert [str(port) for port in (*read.inputs, *read.outputs)] == [
        "'images' (n, 3, 8, 8) float32",
        "'out' (n, 4) float32",
    ]
    assert dict(read.metadata) == {"author": "us"}
    assert dict(read.ends) == {"out": "MatMul"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no ONNX file: it is an empty file; export or copy it again"),
        (b"<!DOCTYPE html><html>", "is no ONNX file: it is a web page; export or copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer in place of the file"),
        (bytes(range(256)) * 9, "is no ONNX file: it is cut, damaged, or something else"),
        (small().SerializeToString()[:-40], "is no ONNX file: it is cut, damaged, or something else"),
        (b"\x0a\x02" * 20_000, "is no ONNX file: it is cut, damaged, or something else"),
    ],
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.onnx"
    file.write_bytes(content)
    assert message in refused(file)


def test_a_missing_file_and_another_sha256_are_refused_as_for_weights(tmp_path: Path) -> None:
    assert f"the ONNX file {tmp_path}/no.onnx cannot be read: No such file" in refused(tmp_path / "no.onnx")
    file = saved(small(), tmp_path / "a.onnx")
    message = refused(file, sha256="0" * 64)
    assert f"the ONNX file {file} has another sha256 than the spec asks for" in message
    right = hashlib.sha256(file.read_bytes()).hexdigest()
    spec = ClassifierSpec(
        model=str(file),
        sha256=right,
        categories=list("abcd"),
        input={"scale": 255},  # type: ignore[arg-type]
    )
    assert load(spec).resolved.weights_sha256 == right


def test_weights_beside_an_onnx_file_are_refused(tmp_path: Path) -> None:
    file = saved(small(), tmp_path / "a.onnx")
    assert (
        refused(file, weights="b.pt")
        == "weights: found 'b.pt', but an ONNX file has its own; leave weights out"
    )


def test_an_opset_and_a_version_that_are_too_new_are_said(tmp_path: Path) -> None:
    message = refused(saved(small(opset=99), tmp_path / "a.onnx"))
    assert re.search(
        r"a\.onnx cannot be computed: it is of opset 99, and ONNX Runtime [\d.]+ knows up to \d+; export it "
        r"with opset \d+ or less, or install a newer onnxruntime$",
        message,
    )
    model = small()
    model.ir_version = 99
    assert re.search(
        r"it is of ONNX's IR version 99, and ONNX Runtime [\d.]+ knows up to \d+",
        refused(saved(model, tmp_path / "b.onnx")),
    )


def test_an_operator_of_a_library_is_refused_also_within_another(tmp_path: Path) -> None:
    node = helper.make_node("Evil", ["mean"], ["row"], domain="com.evil\x1b[31m")
    model = small()
    model.graph.node[1].CopyFrom(node)
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    message = (
        "a.onnx needs the operator 'Evil' of the library 'com.evil [31m'; allowed: operators of ONNX and "
        "ONNX "
        "Runtime, as libraries of operators are code"
    )
    assert message in refused(saved(model, tmp_path / "a.onnx"))
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, [1])
    inner = helper.make_graph([node], "inner", [], [row])
    outer = helper.make_node("If", ["condition"], ["row"], then_branch=inner, else_branch=inner)
    model.graph.node[1].CopyFrom(outer)
    assert message in refused(saved(model, tmp_path / "a.onnx"))


def test_a_function_of_the_file_itself_is_no_library(tmp_path: Path) -> None:
    twice = helper.make_node("Add", ["x", "x"], ["y"])
    function = helper.make_function("own", "Twice", ["x"], ["y"], [twice], [helper.make_opsetid("", 17)])
    model = small()
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.append(helper.make_node("Twice", ["out"], ["twice"], domain="own"))
    model.graph.output[0].name = "twice"
    assert read_onnx(str(saved(model, tmp_path / "a.onnx"))).outputs[0].name == "twice"


def test_a_tensor_that_declares_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    model = small()
    model.graph.initializer[0].dims[:] = [1_000_000, 1_000_000]
    assert (
        "a.onnx is damaged: its tensor 'weights' declares 1,000,000,000,000 values and holds 12"
        in refused(saved(model, tmp_path / "a.onnx"))
    )


def test_a_tensor_that_is_made_of_nothing_takes_no_memory(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"]),
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Add", ["pooled", "mean"], ["out"]),
    ]
    shape = {"shape": np.array([100_000, 100_000], np.int64)}
    model = model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 3, 1, 1]}, shape)
    assert "a.onnx makes a tensor of 10,000,000,000 values (ConstantOfShape)" in refused(
        saved(model, tmp_path / "a.onnx")
    )


def with_tensors_beside(folder: Path, location: str = "a.data") -> Path:
    model = small()
    tensor = model.graph.initializer[0]
    (folder / "a.data").write_bytes(b"\0" * 8 + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "8", "length": "48"}.items():
        tensor.external_data.add(key=key, value=value)
    return saved(model, folder / "a.onnx")


def test_tensors_in_a_file_beside_it_are_read_and_pinned(tmp_path: Path) -> None:
    file = with_tensors_beside(tmp_path)
    read = read_onnx(str(file))
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load_model_from_string(read.data).graph.initializer[0]), WEIGHTS
    )
    lines = "".join(
        sorted(
            f"{hashlib.sha256(it.read_bytes()).hexdigest()}  {it.name}\n"
            for it in (file, tmp_path / "a.data")
        )
    )
    assert read.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert read.beside == ("a.data",)


@pytest.mark.parametrize(
    "location", ["../a.data", "/etc/passwd", "x/../../a.data", "s3://bucket/a", "..\\a.data"]
)
def test_tensors_outside_the_folder_of_the_file_are_refused(tmp_path: Path, location: str) -> None:
    file = with_tensors_beside(tmp_path, location)
    assert f"a.onnx names a file of tensors outside its folder, {location!r}" in refused(file)


def test_tensors_that_are_missing_or_short_are_said(tmp_path: Path) -> None:
    file = with_tensors_beside(tmp_path)
    (tmp_path / "a.data").write_bytes(b"\0" * 20)
    assert (
        "a.onnx is damaged: 'a.data' beside it has 20 bytes, fewer than its tensor 'weights' needs"
        in refused(file)
    )
    (tmp_path / "a.data").unlink()
    message = refused(file)
    assert "a.onnx has its tensors in the file 'a.data', which is not there or cannot be read" in message
    assert message.endswith("put it beside the ONNX file")


def test_an_input_that_nothing_is_known_of_is_refused(tmp_path: Path) -> None:
    model = small()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 8]))
    model.graph.node.append(helper.make_node("ReduceMean", ["mask"], ["unused"], axes=[1]))
    assert "a.onnx wants more than images: its input 'mask' (n, 8) float32; allowed: one input" in refused(
        saved(model, tmp_path / "a.onnx")
    )
    text = model_of([helper.make_node("Identity", ["x"], ["out"])], {"x": ["n", 5]}, {"out": ["n", 5]})
    assert "b.onnx: which input takes images? found 'x' (n, 5) float32" in refused(
        saved(text, tmp_path / "b.onnx")
    )


def test_a_url_shows_no_secret() -> None:
    message = refused("http://user:word@127.0.0.1:9/a.onnx?token=abc")
    assert "http://127.0.0.1:9/a.onnx" in message
    assert "word" not in message
    assert "abc" not in message
