"""Files that are no ONNX files, damaged, hostile, or need what is not there: one sentence each."""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

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


def made_of_nothing(shape: TensorProto | list[int]) -> onnx.ModelProto:
    """A model that makes a tensor of a shape, which is a tensor or the numbers of an operator."""
    given = {"value_ints": shape} if isinstance(shape, list) else {"value": shape}
    nodes = [
        helper.make_node("Constant", [], ["shape"], **given),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceMean", ["huge"], ["mean"]),
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Add", ["pooled", "mean"], ["out"]),
    ]
    return model_of(nodes, {"images": ["n", 3, 8, 8]}, {"out": ["n", 3, 1, 1]})


HUGE = [100_000, 100_000]


@pytest.mark.parametrize("shape", [helper.make_tensor("", TensorProto.INT64, [2], HUGE), HUGE])
def test_a_tensor_that_is_made_of_nothing_takes_no_memory(
    tmp_path: Path, shape: TensorProto | list[int]
) -> None:
    assert "a.onnx makes a tensor of 10,000,000,000 values (ConstantOfShape)" in refused(
        saved(made_of_nothing(shape), tmp_path / "a.onnx")
    )


@pytest.mark.parametrize("dims", [[1], []])
def test_a_tensor_of_half_a_number_more_is_refused_in_a_sentence(tmp_path: Path, dims: list[int]) -> None:
    odd = TensorProto(data_type=TensorProto.INT64, dims=dims, raw_data=b"\1" + b"\0" * 10)
    message = refused(saved(made_of_nothing(odd), tmp_path / "a.onnx"))
    assert re.match(r"a\.onnx (cannot be computed|is damaged): ", message)
    assert "\n" not in message


def sparse(dims: list[int], values: TensorProto | None = None) -> onnx.ModelProto:
    """The weights of `small` as a tensor that is mostly zeros, in an operator: of 12 values two."""
    held = values or numpy_helper.from_array(np.array([5, 7], np.float32), "some")
    places = helper.make_tensor("places", TensorProto.INT64, [2], [1, 6])
    model = small()
    del model.graph.initializer[:]
    tensor = helper.make_sparse_tensor(held, places, dims)
    model.graph.node.insert(0, helper.make_node("Constant", [], ["weights"], sparse_value=tensor))
    return model


def test_tensors_that_are_mostly_zeros_are_read_also_from_a_file_beside(tmp_path: Path) -> None:
    held = TensorProto(name="some", data_type=TensorProto.FLOAT, dims=[2])
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="a.data")
    (tmp_path / "a.data").write_bytes(np.array([5, 7], np.float32).tobytes())
    for model, beside in ((sparse([3, 4]), ()), (sparse([3, 4], held), ("a.data",))):
        file = saved(model, tmp_path / "a.onnx")
        assert read_onnx(str(file)).beside == beside
        spec = ClassifierSpec(model=str(file), categories=list("abcd"), input={"scale": 255})  # type: ignore[arg-type]
        answer = load(spec).model.module(torch.ones(1, 3, 8, 8) * torch.tensor([1.0, 10, 100])[:, None, None])
        assert answer.tolist() == [[0, 5, 70, 0]]


def test_a_tensor_of_mostly_zeros_that_declares_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    assert "a.onnx makes a tensor of 1,000,000,000,000 values (sparse tensor); allowed: up to" in refused(
        saved(sparse([10**6, 10**6]), tmp_path / "a.onnx")
    )
    held = TensorProto(name="some", data_type=TensorProto.FLOAT, dims=[10**9], raw_data=b"\0" * 8)
    assert "its tensor 'some' declares 1,000,000,000 values and holds 2" in refused(
        saved(sparse([3, 4], held), tmp_path / "a.onnx")
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
    "url",
    [
        *("memory://models/a.onnx", "simplecache::memory://models/a.onnx"),
        *("zip://models/a.onnx::file://{archive}", "zip://models/a.onnx::memory://models.zip"),
    ],
)
def test_tensors_beside_a_file_in_an_archive_are_beside_it_there(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    file = with_tensors_beside(folder)
    archive = shutil.make_archive(str(folder), "zip", tmp_path, "models")
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/models", recursive=True)
    memory.put(archive, "/models.zip")
    try:
        read = read_onnx(url.format(archive=archive))
    finally:
        memory.rm(["/models", "/models.zip"], recursive=True)
    assert (read.name, read.beside, read.sha256) == ("a.onnx", ("a.data",), read_onnx(str(file)).sha256)


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


@pytest.mark.parametrize("shape", [["n", 3, 10**6, 10**6], ["n", 8193, 8, 3]])
def test_an_input_of_millions_of_pixels_is_refused_before_it_is_tried(
    tmp_path: Path, shape: list[int | str]
) -> None:
    nodes = [helper.make_node("ReduceMean", ["images"], ["out"], axes=[2, 3], keepdims=0)]
    file = saved(model_of(nodes, {"images": shape}, {"out": ["n", 3]}), tmp_path / "a.onnx")
    found = ", ".join(map(str, shape))
    assert refused(file) == (
        f"a.onnx: found the input 'images' ({found}) float32; allowed for images: sides of 1 to 8,192 pixels"
    )


def test_a_url_shows_no_secret() -> None:
    message = refused("http://user:word@127.0.0.1:9/a.onnx?token=abc")
    assert "http://127.0.0.1:9/a.onnx" in message
    assert "word" not in message
    assert "abc" not in message
