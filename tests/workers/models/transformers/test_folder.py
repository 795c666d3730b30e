"""Folders: which files are taken, what they are known by, what is refused before anything is loaded."""

import ast
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

pytest.importorskip("transformers", reason="needs raylabel[transformers]")

from schemas.exceptions import ModelError
from schemas.tasks import ClassifierSpec
from tests.s3 import S3Server
from tests.s3_proxy import Exchange
from tests.workers.models.pictures import ROOT
from tests.workers.models.transformers.made import CLASSIFIERS, LABELS, make
from tests.workers.storage.proxied import proxied_bucket
from workers.models.registry import load
from workers.models.transformers.folder import opened

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(CLASSIFIERS["vit"], tmp_path_factory.mktemp("folders") / "vit")


@pytest.fixture
def copy(vit: Path, tmp_path: Path) -> Path:
    """A folder to change."""
    return Path(shutil.copytree(vit, tmp_path / "vit"))


def refusal(model: str, **settings: Any) -> str:
    """Why a folder is refused as a classifier."""
    with pytest.raises(ModelError) as refused:
        load(ClassifierSpec(model=model, **settings))
    return str(refused.value)


def edit(file: Path, **changes: object) -> None:
    """Sets keys of a file of JSON; None takes one out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_a_folder_is_known_by_what_sha256sum_prints_of_its_files(vit: Path) -> None:
    command = "sha256sum config.json model.safetensors preprocessor_config.json | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=vit, capture_output=True, text=True, check=True).stdout
    loaded = load(ClassifierSpec(model=f"{vit}/", sha256=printed.split()[0]))
    assert loaded.resolved.weights_sha256 == printed.split()[0]
    other = "0" * 64
    assert refusal(f"{vit}/", sha256=other) == (
        f"the folder {vit} has another sha256 than the spec asks for; it was not loaded\n"
        f"  found    {printed.split()[0]}\n  expected {other}"
    )


def test_no_other_file_of_a_folder_is_looked_into(vit: Path, copy: Path) -> None:
    for name in ("pytorch_model.bin", "adapter_config.json", "modeling_vit.py", "model.fp16.safetensors"):
        (copy / name).write_bytes(b"\x80\x04not to be read")
    with opened(str(copy)) as folder, opened(str(vit)) as same:
        assert folder.files == FILES
        assert sorted(path.name for path in folder.path.iterdir()) == list(FILES)
        assert folder.sha256 == same.sha256
    assert load(ClassifierSpec(model=str(copy))).resolved.weights_sha256 == same.sha256


@pytest.mark.parametrize("changed", FILES)
def test_any_other_byte_makes_another_model(changed: str, vit: Path, copy: Path) -> None:
    if changed.endswith(".json"):
        (copy / changed).write_text((copy / changed).read_text() + "\n")
    else:
        (copy / changed).write_bytes((copy / changed).read_bytes()[:-4] + b"\0\0\0\0")
    one, other = (load(ClassifierSpec(model=f"{folder}/")).resolved for folder in (vit, copy))
    assert one.fingerprint != other.fingerprint
    assert one.code == other.code


def test_where_a_folder_lies_makes_no_other_model(vit: Path, copy: Path) -> None:
    one, other = (load(ClassifierSpec(model=f"{folder}/")).resolved for folder in (vit, copy))
    assert one.weights != other.weights
    assert one.identity() == other.identity()


@pytest.mark.parametrize(
    "url",
    [
        *("memory://models/vit/", "file://{vit}", "simplecache::memory://models/vit"),
        *("zip://vit::file://{archive}", "zip://vit/::{archive}"),
    ],
)
def test_a_folder_in_a_store_is_copied_for_as_long_as_it_is_loaded(
    url: str, vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(tmp_path / "models"), "zip", vit.parent, "vit")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    memory = fsspec.filesystem("memory")
    memory.put(str(vit), "/models/vit", recursive=True)
    try:
        copied = load(ClassifierSpec(model=url.format(vit=vit, archive=archive)))
    finally:
        memory.rm("/models", recursive=True)
    assert list((tmp_path / "temporary").iterdir()) == []
    one, other = copied.resolved, load(ClassifierSpec(model=f"{vit}/")).resolved
    assert one.weights_sha256 == other.weights_sha256
    assert one.network[3:] == other.network[3:]


def test_tensors_may_be_in_several_files(vit: Path, tmp_path: Path) -> None:
    whole = load(ClassifierSpec(model=f"{vit}/"))
    parts = make(CLASSIFIERS["vit"], tmp_path / "parts", max_shard_size="60KB")
    loaded = load(ClassifierSpec(model=f"{parts}/"))
    assert len(list(parts.glob("model-*.safetensors"))) > 1
    for name, tensor in whole.model.module.state_dict().items():
        assert torch.equal(tensor, loaded.model.module.state_dict()[name])
    next(parts.glob("model-00002-*.safetensors")).unlink()
    assert (found := refusal(f"{parts}/")).startswith("there is no model-00002-of-")
    assert found.endswith(f" in {parts}, which model.safetensors.index.json names; copy the whole folder")
    edit(parts / "model.safetensors.index.json", weight_map={"a": "../../secret.safetensors"})
    assert "does not name the files of its tensors" in refusal(f"{parts}/")


def test_a_folder_that_is_changed_while_it_is_read_is_refused_where_that_matters(copy: Path) -> None:
    with opened(str(copy)) as folder:  # which is not read again at the end: that may take long
        folder.assert_unchanged()
        edit(copy / "preprocessor_config.json", do_normalize=False)
        with pytest.raises(
            ModelError, match=f"^the folder {copy} was changed while it was read; begin again$"
        ):
            folder.assert_unchanged()


def test_a_processor_of_images_and_texts_has_the_same_settings(vit: Path, copy: Path) -> None:
    own = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": own, "processor_class": "X"}))
    one, other = (load(ClassifierSpec(model=f"{folder}/")).resolved for folder in (vit, copy))
    assert one.preprocessing == other.preprocessing


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def filled(name: str, data: bytes) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return fill


def edited(name: str, **changes: object) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, **changes)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


CONFIG, PROCESSOR, WEIGHTS = FILES[0], FILES[2], FILES[1]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without(CONFIG), "there is no config.json in {folder}; a Hugging Face folder has one"),
        (
            without(PROCESSOR),
            "there is no preprocessor_config.json in {folder}: how an image becomes the network's",
        ),
        (without(PROCESSOR), "(image_processor_type, size, do_normalize, image_mean, image_std, ...)"),
        (without(WEIGHTS), "there is no model.safetensors in {folder}, and no model.safetensors.index.json"),
        (
            pickled,
            "{folder} has pytorch_model.bin and no model.safetensors: loading a pickle may execute code",
        ),
        (pickled, "from transformers import ViTForImageClassification as M; M.from_pretrained("),
        (cut, "model.safetensors of {folder} cannot be loaded: it is cut or damaged ("),
        (filled(WEIGHTS, b""), "model.safetensors of {folder} cannot be loaded: it is cut or damaged ("),
        (
            filled(WEIGHTS, b"\xff" * 99),
            "model.safetensors of {folder} cannot be loaded: it is cut or damaged (",
        ),
        (filled(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\n"), "it is a Git LFS pointer"),
        (filled(CONFIG, b"<html>"), "config.json of {folder} is no JSON ("),
        (filled(CONFIG, b"\xff\xfe{"), "config.json of {folder} is no JSON ("),
        (filled(CONFIG, b"[" * 100_000), "config.json of {folder} is no JSON ("),
        (filled(CONFIG, b"[]"), "config.json of {folder} holds list; expected an object"),
        (
            edited(CONFIG, auto_map={"AutoModel": "x.Y"}),
            "config.json of {folder} has auto_map: the model is a program",
        ),
        (edited(PROCESSOR, auto_map={"A": "x.Y"}), "preprocessor_config.json of {folder} has auto_map"),
        (
            edited(CONFIG, architecture="resnet10t", pretrained_cfg={}),
            "is a folder of timm's: write `model: timm/resnet10t`",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_a_sentence(
    damage: Callable[[Path], None], said: str, copy: Path
) -> None:
    damage(copy)
    assert said.format(folder=copy) in refusal(f"{copy}/")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("./vit_that_is_not_there/", "there is no folder "),
        (
            "google/vit-base-patch16-224",
            "`hf download google/vit-base-patch16-224 --local-dir vit-base-patch16-224`",
        ),
        ("memory://nothing/here/", "there is no config.json in memory://nothing/here;"),
    ],
)
def test_a_folder_that_is_not_there_is_refused_with_what_to_do(model: str, said: str) -> None:
    assert said in refusal(model)


def denied_where_missing(exchange: Exchange) -> None:
    """As S3 answers those who may not list a bucket."""
    if exchange.status == 404 or "list-type" in exchange.query:
        exchange.refuse(403, "AccessDenied")


def test_a_file_that_may_be_left_out_is_missing_where_a_store_forbids_it(
    s3: S3Server, vit: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "preprocessor_config.json").rename(copy / "processor_config.json")
    own = json.loads((copy / "processor_config.json").read_text())
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": own}))
    bucket = s3.new_bucket()
    s3.files().put(str(copy), f"{bucket}/vit", recursive=True)
    s3.files().put(str(vit / "config.json"), f"{bucket}/bare/config.json")
    with proxied_bucket(s3, bucket) as proxied:
        proxied.spoil = denied_where_missing
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxied.server.endpoint)
        assert load(ClassifierSpec(model=f"s3://{bucket}/vit/")).model.categories == tuple(LABELS.values())
        said = "is not there, or may not be read (Forbidden); many stores say the same of both"
        for folder, file in (("bare", "preprocessor_config.json"), ("none", "config.json")):
            assert refusal(f"s3://{bucket}/{folder}").startswith(f"{file} of s3://{bucket}/{folder} {said}")


def test_a_file_is_no_folder(vit: Path) -> None:
    with (
        pytest.raises(
            ModelError, match=r"config\.json is no folder; a Hugging Face model is named by the folder"
        ),
        opened(str(vit / "config.json")),
    ):
        pass


def test_a_folder_has_its_own_weights(vit: Path) -> None:
    found = refusal(f"{vit}/", weights="other.safetensors")
    assert (
        found
        == "weights: found other.safetensors for a Hugging Face folder, which has its own; leave weights out"
    )


@pytest.mark.parametrize("query", ["", "?token=geheim"])
def test_no_message_shows_a_password(query: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen
        found = refusal(f"http://user:geheim@127.0.0.1:{nobody.getsockname()[1]}/vit/{query}")
    assert found.startswith("config.json of http://127.0.0.1:")
    assert "cannot be read: " in found
    assert "geheim" not in found


def test_loading_asks_no_network(vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **_: asked.append(arguments))
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: asked.append(address))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    load(ClassifierSpec(model=f"{vit}/"))
    assert asked == []


def test_no_module_imports_transformers_before_a_folder_is_used() -> None:
    for path in (ROOT / "workers").rglob("*.py"):
        names = [
            alias.name if isinstance(node, ast.Import) else str(node.module)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert not [name for name in names if name.partition(".")[0] in ("transformers", "tokenizers")], path


def test_without_transformers_a_folder_says_what_to_install(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "`pip install 'raylabel[transformers]'`, on every node of a cluster" in refusal(f"{vit}/")


@pytest.mark.slow
def test_the_line_that_is_printed_for_a_pickle_writes_a_folder_that_loads(vit: Path, copy: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    line = refusal(f"{copy}/").splitlines()[-1].strip()
    subprocess.run(line.replace("python", sys.executable, 1), shell=True, check=True, capture_output=True)
    one, other = (
        load(ClassifierSpec(model=f"{folder}/")).model.module.state_dict() for folder in (vit, copy)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
