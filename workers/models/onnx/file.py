"""Reads an ONNX file without computing anything of it: bytes, ports, metadata; refuses what is not for us."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from schemas.exceptions import ModelError
from workers.models.checkpoints import kind_of
from workers.models.weights import assert_expected, read_bytes
from workers.printable import short_line
from workers.storage.uris import absolute_uri, clean_uri, file_beside, name_of

DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of the operators that ONNX Runtime has itself; others are libraries, which would be executed."""

MAX_ELEMENTS = 2**30
"""The most values of a tensor that a file makes from nothing, such as by ConstantOfShape."""

MAX_METADATA = 2**20
"""The most characters of an entry of the metadata that is looked at; a thousand class names have 30,000."""

_PASSES_ON = (
    *("Identity", "Cast", "CastLike", "Dropout", "Clip", "QuantizeLinear", "DequantizeLinear"),
    *("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"),
)
"""Operators that leave the values of their first input as they are, but for rounding and bounds."""

_MAKES = {"ConstantOfShape": 0, "Expand": 1, "RandomNormal": None, "RandomUniform": None}
"""Operators that make a tensor of any size, and the input that says its shape."""


class UnstatedError(ModelError):
    """A file does not say something that its job spec must state.

    Args:
        message: with the line to add.
        key: of the section.
        example: a value for it, with which the file could be used.
        comment: on that, for who writes it.
    """

    def __init__(self, message: str, key: str, example: Any, comment: str) -> None:
        super().__init__(message)
        self.key, self.example, self.comment = key, example, comment


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: its name.
        dtype: of its values, as numpy calls it.
        shape: its lengths; None where one is free.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{short_line(self.name, 60)!r} {shape_text(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file, read and checked.

    Attributes:
        location: its absolute path or URL, without credentials.
        sha256: of its bytes; where tensors are in other files, of the lines that `sha256sum` prints of it and
            of these, by name.
        data: its bytes, with all tensors in them.
        inputs: of the network, without those that have a value in the file.
        outputs: of the network.
        metadata: what its maker wrote into it, by key.
        opset: the version of its operators.
        producer: what exported it, "pytorch 2.3.1".
        ends: the operator that each output comes from, by the output's name.
        beside: names of the files that hold tensors of it.
    """

    location: str
    sha256: str
    data: bytes = field(repr=False)
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Mapping[str, str]
    opset: int
    producer: str
    ends: Mapping[str, str]
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its last name."""
        return name_of(self.location)


def read_onnx(location: str, expected: str | None = None) -> OnnxFile:
    """Reads an ONNX file and the files beside it that hold its tensors.

    Args:
        location: a path or any fsspec URL.
        expected: the sha256 it must have.

    Raises:
        ModelError: it cannot be read, has another sha256, is not ONNX or damaged, needs a library of
            operators, or lacks a file that it names.
    """
    name = clean_uri(absolute_uri(location))
    data = read_bytes(location, "the ONNX file")
    digest = hashlib.sha256(data).hexdigest()
    model = _parsed(data, name)
    beside = _load_external(model, location, name)
    if beside:
        lines = sorted([f"{digest}  {name_of(name)}\n", *(f"{d}  {n}\n" for n, d in beside.items())])
        digest = hashlib.sha256("".join(lines).encode()).hexdigest()
        data = _serialized(model, name)
    assert_expected(name, digest, expected, "the ONNX file")
    _assert_whole(model, name)
    _assert_operators(model, name)
    return OnnxFile(
        location=name,
        sha256=digest,
        data=data,
        inputs=_ports(model, "input", name),
        outputs=_ports(model, "output", name),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        opset=max((it.version for it in model.opset_import if it.domain in ("", "ai.onnx")), default=0),
        producer=short_line(f"{model.producer_name} {model.producer_version}".strip(), 60),
        ends={output.name: _end_of(model.graph, output.name) for output in model.graph.output},
        beside=tuple(beside),
    )


def shape_text(shape: tuple[int | None, ...]) -> str:
    """A shape in words: "(n, 3, 640, 640)"; lengths that are free are letters."""
    free = iter("nabcdefgh")
    return f"({', '.join(next(free, '?') if length is None else str(length) for length in shape)})"


def _parsed(data: bytes, name: str) -> onnx.ModelProto:
    """The model in some bytes.

    Raises:
        ModelError: there is none.
    """
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own kinds
        model = None
    if model is None or not model.graph.node or not model.graph.output:
        found = f"it is {kind}" if (kind := kind_of(data)) else "it is cut, damaged, or something else"
        raise ModelError(f"{name} is no ONNX file: {found}; export or copy it again")
    return model


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """All graphs of a model: its own, those within operators, and functions."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in _attributes(graph):
            waiting += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _attributes(graph: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.AttributeProto]:
    """What the operators of a graph are given beside inputs, and the defaults of a function."""
    for node in graph.node:
        yield from node.attribute
    if isinstance(graph, onnx.FunctionProto):
        yield from graph.attribute_proto


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors that a model holds; of those that are mostly zeros, what they hold of others."""
    yield from _held(model, "initializer", "tensors", "t")
    for sparse in _sparse_tensors(model):
        yield from (sparse.values, sparse.indices)


def _sparse_tensors(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """All tensors of a model that are mostly zeros, of which only the others are in the file."""
    return _held(model, "sparse_initializer", "sparse_tensors", "sparse_tensor")


def _held(model: onnx.ModelProto, initializers: str, several: str, one: str) -> Iterator[Any]:
    """What a model's graphs hold in a field of theirs, and in two fields of attributes."""
    for graph in _graphs(model):
        if isinstance(graph, onnx.GraphProto):
            yield from getattr(graph, initializers)
        for attribute in _attributes(graph):
            yield from getattr(attribute, several)
            if attribute.HasField(one):
                yield getattr(attribute, one)


def _assert_operators(model: onnx.ModelProto, name: str) -> None:
    """Refuses operators of libraries, which would have to be executed, and tensors that are bombs."""
    own = {(function.domain, function.name) for function in model.functions}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for graph in _graphs(model):
        for node in graph.node:
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
                raise ModelError(
                    f"{name} needs the operator {short_line(node.op_type, 60)!r} of the library "
                    f"{short_line(node.domain, 60)!r}; allowed: operators of ONNX and ONNX Runtime, as "
                    "libraries of operators are code"
                )
            if node.op_type == "Constant" and node.output:
                constants[node.output[0]] = _constant(node)
    made = [
        (_size_made(node, constants), node.op_type)
        for graph in _graphs(model)
        for node in graph.node
        if node.op_type in _MAKES
    ]
    made += [(math.prod(sparse.dims), "sparse tensor") for sparse in _sparse_tensors(model)]
    for size, what in made:
        if size > MAX_ELEMENTS:
            raise ModelError(
                f"{name} makes a tensor of {size:,} values ({what}); allowed: up to {MAX_ELEMENTS:,}"
            )


def _constant(node: onnx.NodeProto) -> onnx.TensorProto:
    """The value of a Constant that may be a shape; one without values where it is none."""
    made = onnx.TensorProto()
    for attribute in node.attribute:
        if attribute.name == "value":
            made = attribute.t
        elif attribute.name == "value_ints":
            count = len(attribute.ints)
            made = onnx.TensorProto(data_type=onnx.TensorProto.INT64, dims=[count], int64_data=attribute.ints)
    return made


def _size_made(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> int:
    """How many values an operator makes, where the file says it; else 0."""
    position = _MAKES[node.op_type]
    if position is None:
        shape = next((list(a.ints) for a in node.attribute if a.name == "shape"), [])
        return math.prod(shape) if shape else 0
    tensor = constants.get(node.input[position]) if len(node.input) > position else None
    if tensor is None or math.prod(tensor.dims) > 64 or tensor.data_type != onnx.TensorProto.INT64:
        return 0
    whole = tensor.raw_data[: len(tensor.raw_data) // 8 * 8]
    values = np.frombuffer(whole, "<i8") if tensor.raw_data else np.array(tensor.int64_data)
    return math.prod(int(value) for value in values)


def _assert_whole(model: onnx.ModelProto, name: str) -> None:
    """Refuses tensors that declare more values than they hold, for which memory would be taken."""
    for tensor in _tensors(model):
        if tensor.data_type == onnx.TensorProto.STRING:
            continue
        try:
            bits = _bits(tensor.data_type)
        except (KeyError, TypeError, ValueError):
            bits = 0
        count = math.prod(tensor.dims)
        holds = len(tensor.raw_data) * 8 // bits if bits and tensor.raw_data else _typed_values(tensor)
        if not bits or min(tensor.dims, default=0) < 0 or not count <= holds <= count + 1:
            raise ModelError(
                f"{name} is damaged: its tensor {short_line(tensor.name, 60)!r} declares {count:,} values "
                f"and holds {holds:,}; export or copy it again"
            )


def _typed_values(tensor: onnx.TensorProto) -> int:
    """The values that a tensor holds by their type, not as bytes."""
    return sum(
        len(getattr(tensor, f"{kind}_data")) for kind in ("float", "int32", "int64", "double", "uint64")
    )


def _bits(data_type: int) -> int:
    """Bits of a value of a tensor's type."""
    name = onnx.TensorProto.DataType.Name(data_type)
    if name in ("INT4", "UINT4", "FLOAT4E2M1"):
        return 4
    return 8 if name.startswith("FLOAT8") else onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize * 8


def _load_external(model: onnx.ModelProto, location: str, name: str) -> dict[str, str]:
    """Reads tensors that are in files beside a model into it; returns the sha256 of each of these, by name.

    Raises:
        ModelError: one cannot be read, is not beside the model, or is too short.
    """
    contents: dict[str, bytes] = {}
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        file = where.get("location", "")
        if file not in contents:
            contents[file] = _read_beside(location, file, name)
        start, length = _range(where, len(contents[file]))
        data = contents[file][start : start + length]
        if len(data) < length:
            raise ModelError(
                f"{name} is damaged: {short_line(file, 100)!r} beside it has {len(contents[file]):,} "
                f"bytes, fewer than its tensor {short_line(tensor.name, 60)!r} needs; copy both again"
            )
        tensor.raw_data = data
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    return {file: hashlib.sha256(data).hexdigest() for file, data in contents.items()}


def _range(where: Mapping[str, str], size: int) -> tuple[int, int]:
    """The first byte of a tensor in a file of a size, and how many it has."""
    try:
        start = int(where.get("offset", "0") or 0)
        return start, int(where["length"]) if where.get("length") else size - start
    except ValueError:
        return size, 1


def _read_beside(location: str, file: str, name: str) -> bytes:
    """A file that holds tensors, in the folder of the model.

    Raises:
        ModelError: it is in another folder, or cannot be read.
    """
    parts = file.replace("\\", "/").split("/")
    if not file or file.startswith(("/", "\\")) or ".." in parts or ":" in file:
        raise ModelError(
            f"{name} names a file of tensors outside its folder, {short_line(file, 100)!r}; allowed: one "
            "beside it"
        )
    try:
        return read_bytes(file_beside(absolute_uri(location), file), "it")
    except ModelError as error:
        raise ModelError(
            f"{name} has its tensors in the file {short_line(file, 100)!r}, which is not there or cannot "
            f"be read ({error}); put it beside the ONNX file"
        ) from None


def _serialized(model: onnx.ModelProto, name: str) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # protobuf's own kinds
        raise ModelError(
            f"{name} and its tensors have over 2 GB, which is more than one ONNX model may ({error})"
        ) from None


def _ports(model: onnx.ModelProto, side: str, name: str) -> tuple[Port, ...]:
    """The inputs or outputs of a network.

    Raises:
        ModelError: one is no tensor.
    """
    values = {tensor.name for tensor in model.graph.initializer}
    ports = []
    for value in getattr(model.graph, side):
        if value.name in values:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                f"{name}: its {side} {short_line(value.name, 60)!r} is no tensor; allowed: a network from "
                "tensors to tensors (an export of scikit-learn: zipmap=False)"
            )
        tensor = value.type.tensor_type
        shape = tuple(
            it.dim_value if it.HasField("dim_value") and it.dim_value > 0 else None for it in tensor.shape.dim
        )
        ports.append(Port(value.name, _dtype(tensor.elem_type), shape))
    return tuple(ports)


def _dtype(data_type: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(data_type).name)
    except (KeyError, TypeError, ValueError):
        return "unknown"


def _end_of(graph: onnx.GraphProto, output: str) -> str:
    """The operator that an output's values come from; "" where there is none."""
    makers = {name: node for node in graph.node for name in node.output}
    for _ in range(len(graph.node)):
        node = makers.get(output)
        if node is None or node.op_type not in _PASSES_ON:
            break
        output = node.input[0] if node.input else ""
    return makers[output].op_type if output in makers else ""
