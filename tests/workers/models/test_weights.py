import hashlib
import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.models.weights import load_state, read_weights


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def test_pth_and_safetensors_give_the_same_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pt")
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pt", "c.safetensors"):
        found = read_weights(str(tmp_path / name))
        assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_weights_are_read_from_any_fsspec_url(state: dict[str, Tensor]) -> None:
    with fsspec.open("memory://models/a.pth", "wb") as file:
        torch.save(state, file)
    assert torch.equal(read_weights("memory://models/a.pth").state["bias"], state["bias"])


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trap-was-sprung"),))


def test_nothing_in_a_weights_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"weight": Trap()}, "trap2.pth")
    for name in ("trap.pth", "trap2.pth"):
        with pytest.raises(ModelError, match="cannot be loaded"):
            read_weights(name)
    assert not Path("trap-was-sprung").exists()


def test_a_wrong_sha256_is_refused_with_both_digests_before_the_file_is_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "not-even-weights.pth"
    path.write_bytes(b"anything")
    with pytest.raises(ModelError, match="another sha256") as caught:
        read_weights(str(path), "0" * 64)
    assert hashlib.sha256(b"anything").hexdigest() in str(caught.value)
    assert "0" * 64 in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.bin", b"x", "must end in .pth, .pt or .safetensors"),
        ("a.pth", b"x", "cannot be loaded"),
        ("a.safetensors", b"x", "cannot be loaded"),
        ("a.safetensors", b"", "cannot be loaded"),
        ("missing.pth", None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_weights_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(str(tmp_path / name))


def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="does not hold tensors by name"):
        read_weights(str(tmp_path / "list.pth"))


def test_tensors_that_do_not_fit_are_named(state: dict[str, Tensor]) -> None:
    with pytest.raises(ModelError) as caught:
        load_state(nn.Linear(4, 2), {"weight": state["weight"], "extra": state["bias"]}, "linear", "f.pth")
    assert str(caught.value) == (
        "the weights file f.pth does not fit linear: 1 tensors missing (bias); 1 tensors unexpected (extra); "
        "1 tensors of another shape (weight is (2, 3), the model's (2, 4))"
    )
