"""Files of models that cannot be named as `model`: what they are, and what to do with them."""

from schemas.tasks import ModelSpec

_EXPORT = "export it to ONNX where it was trained, and name that file"

_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (".pt",),
        "a file of PyTorch's objects, which only executing it can load",
        "export it, for example one of Ultralytics with `yolo export model={file} format=onnx`, and name "
        "{stem}.onnx; if it holds tensors by name, name the network and give it as `weights: {file}`",
    ),
    (
        (".pth", ".pth.tar", ".bin", ".ckpt", ".safetensors"),
        "a file of weights, which is no network",
        "name the network, and give the file as `weights: {file}`",
    ),
    ((".torchscript", ".ptl", ".pkl"), "a program of PyTorch's, which would be executed", _EXPORT),
    (
        (".engine", ".plan", ".trt"),
        "an engine of TensorRT's, which runs on one kind of GPU",
        "name the ONNX file that it was made from",
    ),
    (
        (".tflite",),
        "a model of TensorFlow Lite's",
        "make an ONNX file of it with `python -m tf2onnx.convert --tflite {file} --output {stem}.onnx`",
    ),
    (
        (".pb", ".h5", ".keras"),
        "a model of TensorFlow's",
        "make an ONNX file of it with tf2onnx, and name that file",
    ),
    ((".mlmodel", ".mlpackage"), "a model of Core ML's", _EXPORT),
    ((".xml",), "a model of OpenVINO's", "name the ONNX file that it was made from"),
    ((".zip",), "an archive", "unpack it, and name what is in it"),
    (
        (".ncnn", ".param", ".pdmodel", ".gguf", ".rknn", ".hef", ".ort"),
        "a model of another runtime's",
        _EXPORT,
    ),
)
"""How their names end, what they are, what to do."""

POSSIBLE = "a name that `raylabel models` lists, an ONNX file, a folder with config.json, or module:factory"
"""What `model` may be."""


def what_to_do(spec: ModelSpec) -> str | None:
    """The message for a `model` that nothing takes and that names a file or a folder; None for others."""
    file, task = spec.name, spec.task.name
    for ends, kind, advice in _KINDS:
        if end := next((end for end in ends if file.lower().endswith(end)), None):
            stem = file[: -len(end)] or "model"
            return f"{file} is no {task} but {kind}: {advice.format(file=file, stem=stem)}"
    return None
