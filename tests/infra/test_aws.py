"""infra/aws/cluster.yaml by the code with which `ray up` checks it, up to where that asks AWS."""

import copy
from typing import Any

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.infra.manifests import AWS, documents


def cluster() -> dict[str, Any]:
    (found,) = documents(AWS)
    return found


def test_ray_up_would_take_it() -> None:
    prepared = prepare_config(cluster())
    validate_config(prepared)
    assert {
        name: (each["min_workers"], each["max_workers"])
        for name, each in prepared["available_node_types"].items()
    } == {
        "head": (0, 0),
        "gpu": (1, 4),
        "cpu": (0, 4),
    }


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("dokcer",), {}),
        (("docker", "runoptions"), []),
        (("available_node_types", "gpu", "max_worker"), 4),
        (("head_node_type",), "haed"),
        (("max_workers",), 0),
    ],
)
def test_what_ray_up_would_refuse_is_found(keys: tuple[str, ...], value: object) -> None:
    broken = copy.deepcopy(cluster())
    section = broken
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(broken))


def test_the_head_is_on_demand_without_work_and_workers_are_spot() -> None:
    config = cluster()
    head = config["available_node_types"].pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert set(config["available_node_types"]) == {"gpu", "cpu"}
    for worker in config["available_node_types"].values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]


def test_nothing_is_open_to_the_world_and_no_node_has_keys() -> None:
    config = cluster()
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "security_group" not in config["provider"]  # Ray would add SSH for everybody to it
    for each in config["available_node_types"].values():
        assert each["node_config"]["SecurityGroupIds"]
        assert each["node_config"]["IamInstanceProfile"]
        assert each["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}


def test_all_is_in_the_image() -> None:
    prepared = prepare_config(cluster())
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == []
