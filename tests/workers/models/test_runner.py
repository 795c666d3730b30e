import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.models.predictor import is_out_of_memory
from workers.models.runner import autocast_dtype, batches


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 7))
def test_batches_hold_every_position_once_and_one_key_each(keys: list[int], size: int) -> None:
    found = batches(keys, size)
    assert sorted(i for batch in found for i in batch) == list(range(len(keys)))
    for batch in found:
        assert 1 <= len(batch) <= size
        assert len({keys[i] for i in batch}) == 1
        assert batch == sorted(batch)


def test_a_cpu_runs_in_float32_unless_told_otherwise() -> None:
    cpu = torch.device("cpu")
    assert autocast_dtype(cpu, "auto") == torch.float32
    assert autocast_dtype(cpu, "bfloat16") == torch.bfloat16
    assert autocast_dtype(torch.device("cuda"), "float32") == torch.float32


def test_out_of_memory_is_known_by_all_its_faces() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
