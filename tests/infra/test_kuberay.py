"""The Kubernetes files against the schemas of their objects, and what keeps a job safe on them."""

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray._private import ray_constants

from jobs.cluster.pools import plan_pool
from schemas.spec import JobSpec
from schemas.spec_file import build_spec
from tests.conftest import SHARED
from tests.infra.crds import faults
from tests.infra.manifests import KUBERNETES, container, documents, groups, kubernetes, pod

CRDS = SHARED / "infra" / "crds"
KUBERAY, PLAIN = "ray.io/v1", "1.35"
ANY_JOB = build_spec({"manifest": "photos", "output": "run"}, "here")
OBJECTS = [(path.name, each) for path in KUBERNETES for each in documents(path)]

needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="KubeRay's resource definitions are not here")


def job_cluster() -> dict[str, Any]:
    """The RayCluster's spec within the RayJob."""
    spec: dict[str, Any] = kubernetes("RayJob")["spec"]["rayClusterSpec"]
    return spec


def standing_cluster() -> dict[str, Any]:
    spec: dict[str, Any] = kubernetes("RayCluster")["spec"]
    return spec


both_clusters = pytest.mark.parametrize(
    "cluster", [job_cluster(), standing_cluster()], ids=["job", "standing"]
)


@needs_crds
@pytest.mark.parametrize(
    "resource", [o for _, o in OBJECTS if o["apiVersion"] == KUBERAY], ids=lambda o: o["kind"]
)
def test_kuberay_would_take_its_objects(resource: dict[str, Any]) -> None:
    assert faults(resource, CRDS) == []


def misspelt(spec: dict[str, Any]) -> None:
    spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"


def without_a_name(spec: dict[str, Any]) -> None:
    del spec["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]


def number_for_text(spec: dict[str, Any]) -> None:
    spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def unknown_mode(spec: dict[str, Any]) -> None:
    spec["rayClusterSpec"]["authOptions"]["mode"] = "password"


def half_a_strategy(spec: dict[str, Any]) -> None:
    spec["deletionStrategy"] = {"onSuccess": {"policy": "DeleteCluster"}}  # against a CEL rule


@needs_crds
@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (misspelt, "'imagePullPolice' was unexpected"),
        (without_a_name, "'groupName' is a required property"),
        (number_for_text, "0 is not of type 'string'"),
        (unknown_mode, "'password' is not one of"),
        (half_a_strategy, "requires either BOTH onSuccess and onFailure"),
    ],
)
def test_what_kuberay_would_refuse_is_found(break_it: Callable[[dict[str, Any]], None], said: str) -> None:
    broken = copy.deepcopy(kubernetes("RayJob"))
    break_it(broken["spec"])
    assert any(said in fault for fault in faults(broken, CRDS))


@pytest.mark.parametrize(
    "resource", [o for _, o in OBJECTS if o["apiVersion"] != KUBERAY], ids=lambda o: o["kind"]
)
def test_kubernetes_would_take_its_own_objects(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, PLAIN, strict=True)


def test_what_kubernetes_would_refuse_is_found() -> None:
    broken = copy.deepcopy(kubernetes("NetworkPolicy"))
    broken["spec"]["ingres"] = broken["spec"].pop("ingress")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, PLAIN, strict=True)


def test_a_job_gets_the_cluster_that_also_stands_alone() -> None:
    cluster = copy.deepcopy(job_cluster())
    head = cluster["headGroupSpec"]
    pod(head)["volumes"] = [each for each in pod(head)["volumes"] if each["name"] != "job"]
    container(head)["volumeMounts"] = [m for m in container(head)["volumeMounts"] if m["name"] != "job"]
    assert cluster == standing_cluster()


def mounted_spec() -> JobSpec:
    """The job spec of the ConfigMap."""
    return build_spec(yaml.safe_load(kubernetes("ConfigMap")["data"]["job.yaml"]), "the ConfigMap")


def test_the_entrypoint_reads_the_mounted_job() -> None:
    head = job_cluster()["headGroupSpec"]
    (mount,) = (each for each in container(head)["volumeMounts"] if each["name"] == "job")
    (volume,) = (each for each in pod(head)["volumes"] if each["name"] == "job")
    job_map = kubernetes("ConfigMap")
    assert volume["configMap"]["name"] == job_map["metadata"]["name"]
    (key,) = job_map["data"]
    assert f" {mount['mountPath']}/{key} " in kubernetes("RayJob")["spec"]["entrypoint"]


def node(group: dict[str, Any]) -> dict[str, float]:
    """The resources that KubeRay tells Ray of a group's node: its container's limits."""
    params, limits = group["rayStartParams"], container(group)["resources"]["limits"]
    cpus = params.get("num-cpus", limits.get("cpu"))
    return {"CPU": float(cpus), "GPU": float(limits.get("nvidia.com/gpu", 0))}


@both_clusters
def test_the_job_has_room_on_the_nodes_of_the_beginning_and_fills_those_of_the_end(
    cluster: dict[str, Any],
) -> None:
    head, *workers = groups(cluster)
    first = [node(head), *(node(group) for group in workers for _ in range(group["minReplicas"]))]
    last = [node(head), *(node(group) for group in workers for _ in range(group["maxReplicas"]))]
    wanted, most = plan_pool(mounted_spec().compute, first), plan_pool(ANY_JOB.compute, last)
    assert (wanted.device, wanted.most) == (most.device, most.actors)
    assert wanted.num_cpus + 1 <= min(each["CPU"] for each in first if each["GPU"])


@both_clusters
def test_the_head_does_no_work_and_workers_come_and_go(cluster: dict[str, Any]) -> None:
    head, *workers = groups(cluster)
    assert node(head) == {"CPU": 0, "GPU": 0}
    assert cluster["enableInTreeAutoscaling"]
    for group in workers:
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
    assert {bool(node(group)["GPU"]) for group in workers} == {True, False}


@both_clusters
def test_every_pod_has_the_time_that_a_clean_end_takes(cluster: dict[str, Any]) -> None:
    head, *workers = groups(cluster)
    drain = ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    (stop,) = (each for each in container(head)["env"] if each["name"] == "RAY_JOB_STOP_WAIT_TIME_S")
    assert pod(head)["terminationGracePeriodSeconds"] > int(stop["value"]) + drain
    assert all(pod(group)["terminationGracePeriodSeconds"] > drain for group in workers)
    assert "pkill -TERM -x raylabel" in container(head)["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_a_lost_head_means_another_attempt() -> None:
    spec = kubernetes("RayJob")["spec"]
    assert spec["submissionMode"] == "SidecarMode"
    assert spec["backoffLimit"] >= 1
    assert pod(job_cluster()["headGroupSpec"]).get("restartPolicy", "Never") == "Never"


@both_clusters
def test_pods_run_without_rights_with_a_token_and_shared_memory(cluster: dict[str, Any]) -> None:
    assert cluster["authOptions"] == {"mode": "token"}
    for group in groups(cluster):
        context, of_container = pod(group)["securityContext"], container(group)["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == 1000  # the Dockerfile's
        assert not of_container["allowPrivilegeEscalation"]
        assert of_container["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container(group)["resources"]["limits"]
        mounts = {each["mountPath"]: each["name"] for each in container(group)["volumeMounts"]}
        (shm,) = (each for each in pod(group)["volumes"] if each["name"] == mounts["/dev/shm"])
        assert shm["emptyDir"]["medium"] == "Memory"


@both_clusters
def test_pods_have_the_account_and_the_label_that_the_common_file_is_about(cluster: dict[str, Any]) -> None:
    account, policy = kubernetes("ServiceAccount"), kubernetes("NetworkPolicy")
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    for group in groups(cluster):
        assert pod(group)["serviceAccountName"] == account["metadata"]["name"]
        assert wanted.items() <= group["template"]["metadata"]["labels"].items()
    assert all(not pod(group)["automountServiceAccountToken"] for group in cluster["workerGroupSpecs"])
