"""Test the files for clusters of several machines, without any machine."""

import re
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as autoscaling_config,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from orchestrator.errors import EnvironmentUnusable, SpecError, SweepError
from orchestrator.sweepfile.shipped import shipped

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
KUBERNETES = "1.33"
Document = dict[str, Any]


def _load(name: str) -> list[Document]:
    return list(YAML(typ="safe").load_all(DOCKER / name))


MANIFEST = {(doc["kind"], doc["metadata"]["name"]): doc for doc in _load("kuberay.yaml")}
CLUSTER, JOB = MANIFEST["RayCluster", "aae"], MANIFEST["Job", "aae-sweep"]
(RAY_UP,) = _load("ray-up.yaml")
COMPOSE = YAML().load(DOCKER / "compose.yaml")  # only the round-trip loader accepts its tags


def _templates() -> dict[str, Document]:
    workers = {group["groupName"]: group for group in CLUSTER["spec"]["workerGroupSpecs"]}
    groups = {"head": CLUSTER["spec"]["headGroupSpec"], **workers, "driver": JOB["spec"]}
    return {name: group["template"] for name, group in groups.items()}


TEMPLATES = _templates()
of_every_pod = pytest.mark.parametrize(
    "pod", [t["spec"] for t in TEMPLATES.values()], ids=TEMPLATES
)


def _container(pod: Document) -> Document:
    (container,) = pod["containers"]
    assert "initContainers" not in pod
    return container


def _environment(container: Document) -> dict[str, str]:
    configured = MANIFEST["ConfigMap", "aae-ray"]["data"]
    assert {"configMapRef": {"name": "aae-ray"}} in container["envFrom"]
    return configured | {each["name"]: each["value"] for each in container["env"]}


# -- valid for Kubernetes ----------------------------------------------------------------------

_GROUP = {
    "template": {"type": "object"},
    "rayStartParams": {"additionalProperties": {"type": "string"}},
}
_COUNT = {"type": "integer", "minimum": 0}


def _exactly(**properties: Any) -> Document:
    return {"additionalProperties": False, "required": [*properties], "properties": properties}


# The part of KubeRay's RayCluster that the manifest uses. The pod templates are Kubernetes' own.
RAY_CLUSTER = _exactly(
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata={"type": "object"},
    spec=_exactly(
        rayVersion={"type": "string"},
        headGroupSpec=_exactly(serviceType={"const": "ClusterIP"}, **_GROUP),
        workerGroupSpecs={
            "items": _exactly(
                groupName={"type": "string"},
                replicas=_COUNT,
                minReplicas=_COUNT,
                maxReplicas=_COUNT,
                **_GROUP,
            )
        },
    ),
)


def _is_taken(document: Document) -> None:
    if document["kind"] == "RayCluster":
        jsonschema.validate(document, RAY_CLUSTER)
        spec = document["spec"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            template = {"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]}
            kubernetes_validate.validate(template, KUBERNETES, strict=True)
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("document", MANIFEST.values(), ids=[f"{k}-{n}" for k, n in MANIFEST])
def test_manifest_documents_are_valid_for_kubernetes(document: Document) -> None:
    _is_taken(document)


def _misspell_replicas(cluster: Document) -> None:
    group = cluster["spec"]["workerGroupSpecs"][0]
    group["replica"] = group.pop("replicas")


def _misspell_a_lock(cluster: Document) -> None:
    pod = cluster["spec"]["workerGroupSpecs"][1]["template"]["spec"]
    pod["containers"][0]["securityContext"]["readOnlyRootFileSystem"] = True


def _start_with_a_number(cluster: Document) -> None:
    cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _forget_the_restart_policy(job: Document) -> None:
    job["spec"]["template"]["spec"]["restartPolicy"] = 0


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        (CLUSTER, _misspell_replicas),
        (CLUSTER, _misspell_a_lock),
        (CLUSTER, _start_with_a_number),
        (JOB, _forget_the_restart_policy),
    ],
)
def test_manifest_check_rejects_an_invalid_document(
    document: Document, wrong: Callable[[Document], None]
) -> None:
    document = deepcopy(document)
    wrong(document)
    with pytest.raises(jsonschema.ValidationError):
        _is_taken(document)


# -- valid for Ray -----------------------------------------------------------------------------


def _node_types(cluster: Document) -> dict[str, tuple[int, int, Document]]:
    named = cluster | {"metadata": {"namespace": "aae", **cluster["metadata"]}}
    return {
        name: (kind["min_workers"], kind["max_workers"], kind["resources"])
        for name, kind in autoscaling_config(named)["available_node_types"].items()
    }


def test_ray_finds_a_head_without_cpus_and_two_worker_types() -> None:
    gib = 2**30
    assert _node_types(CLUSTER) == {
        "headgroup": (0, 0, {"CPU": 0, "GPU": 0, "memory": 4 * gib}),
        "cpu": (0, 100, {"CPU": 4, "memory": 8 * gib}),
        "gpu": (0, 100, {"CPU": 8, "GPU": 1, "memory": 32 * gib}),
    }


def test_ray_rejects_workers_of_unknown_size() -> None:
    cluster = deepcopy(CLUSTER)
    del _container(cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"])["resources"]
    with pytest.raises(ValueError, match="CPU"):
        _node_types(cluster)


def test_manifest_has_the_pinned_ray_version() -> None:
    assert CLUSTER["spec"]["rayVersion"] == ray.__version__
    assert f"ray=={ray.__version__}\n" in (ROOT / "constraints.txt").read_text()


def test_ray_up_accepts_its_configuration_file() -> None:
    config = prepare_config(deepcopy(RAY_UP))
    validate_config(config)
    (kind,) = config["available_node_types"].values()
    addresses = RAY_UP["provider"]["worker_ips"]
    assert kind["min_workers"] == kind["max_workers"] == config["max_workers"] == len(addresses)
    head = f"--node-ip-address={RAY_UP['provider']['head_ip']} "
    assert any(head in command for command in RAY_UP["head_start_ray_commands"])
    assert any("--num-cpus=0 --num-gpus=0 " in c for c in RAY_UP["head_start_ray_commands"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"setup_command": []},
        {"max_workers": "two"},
        {"head_start_ray_commands": "ray start --head"},
        {"auth": {"ssh_key": "~/.ssh/id_ed25519"}},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_ray_up_rejects_an_invalid_configuration_file(wrong: Document) -> None:
    with pytest.raises((jsonschema.ValidationError, TypeError)):
        validate_config(prepare_config(deepcopy(RAY_UP) | wrong))


# -- as safe as compose ------------------------------------------------------------------------


@of_every_pod
def test_every_container_has_the_restrictions_of_compose(pod: Document) -> None:
    assert COMPOSE["x-locked"]["cap_drop"] == ["ALL"]
    assert COMPOSE["x-locked"]["read_only"]
    assert _container(pod)["securityContext"] == {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["automountServiceAccountToken"] is False


def _keys(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            yield from _keys(value)
    elif isinstance(document, list):
        for value in document:
            yield from _keys(value)


def test_manifest_publishes_no_port_and_no_service() -> None:
    assert not {kind for kind, _ in MANIFEST} & {"Service", "Ingress", "Route", "Gateway"}
    published = {"hostNetwork", "hostPort", "hostPID", "hostIPC", "hostPath", "nodePort", "ports"}
    pods = list(TEMPLATES.values())
    assert not published & set(_keys(pods))
    assert CLUSTER["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_network_policy_admits_only_the_pods_of_the_cluster() -> None:
    policy = MANIFEST["NetworkPolicy", "aae-ray"]["spec"]
    ours = policy["podSelector"]["matchLabels"]
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": ours}}]}]
    for template in TEMPLATES.values():
        assert ours.items() <= template["metadata"]["labels"].items()
    free = MANIFEST["NetworkPolicy", "aae-driver"]["spec"]["podSelector"]["matchLabels"]
    matched = [n for n, t in TEMPLATES.items() if free.items() <= t["metadata"]["labels"].items()]
    assert matched == ["driver"]


def test_manifest_contains_no_secret() -> None:
    assert not [kind for kind, _ in MANIFEST if kind == "Secret"]
    for name, value in _every_variable():
        if re.search(r"TOKEN|PASSWORD|SECRET|KEY|URI", name):
            assert name == "RAY_AUTH_TOKEN_PATH"
            assert value.startswith("/")


def _every_variable() -> Iterator[tuple[str, str]]:
    for template in TEMPLATES.values():
        yield from _environment(_container(template["spec"])).items()


@of_every_pod
def test_ray_token_is_a_file_only_its_user_reads(pod: Document) -> None:
    container = _container(pod)
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "ray-token")
    (volume,) = (v for v in pod["volumes"] if v["name"] == "ray-token")
    assert mount["readOnly"]
    # KubeRay's own init container gets these variables, but not the ConfigMap.
    assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"} <= {each["name"] for each in container["env"]}
    assert _environment(container)["RAY_AUTH_TOKEN_PATH"] == f"{mount['mountPath']}/ray_token"
    assert volume["secret"] == {"secretName": "aae-ray", "defaultMode": 0o440}


def test_driver_pod_alone_has_store_credentials() -> None:
    holders = [n for n, template in TEMPLATES.items() if "aae-stores" in str(template)]
    assert holders == ["driver"]


# -- the same cluster as compose's -------------------------------------------------------------


@of_every_pod
def test_pod_image_environment_and_home_equal_those_of_compose(pod: Document) -> None:
    container = _container(pod)
    assert container["image"] == _defaults(COMPOSE["x-app"]["image"])
    assert COMPOSE["x-ray"]["environment"].items() <= _environment(container).items()
    (home,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "home")
    assert any(f":{home}" in volume for volume in COMPOSE["services"]["worker"]["volumes"])
    assert f"AAE_HOME={home} " in (DOCKER / "image" / "Dockerfile").read_text()


def _defaults(text: str) -> str:
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_node_has_the_object_store_of_compose() -> None:
    wanted = _defaults(COMPOSE["services"]["sweep"]["environment"]["OBJECT_STORE"])
    groups = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
    assert {g["rayStartParams"]["object-store-memory"] for g in groups} == {wanted}
    assert _environment(_container(TEMPLATES["driver"]["spec"]))["OBJECT_STORE"] == wanted


def test_driver_pod_has_the_entrypoint_of_compose() -> None:
    container = _container(TEMPLATES["driver"]["spec"])
    assert container["command"] == COMPOSE["services"]["sweep"]["entrypoint"]
    environment = _environment(container)
    # KubeRay gives this name to the head's service.
    assert environment["RAY_ADDRESS"] == f"{CLUSTER['metadata']['name']}-head-svc:6379"
    verb, file = container["args"]
    assert verb == "run"
    assert file in shipped()


def test_job_resumes_unless_the_exit_code_is_final() -> None:
    rule, evicted = JOB["spec"]["podFailurePolicy"]["rules"]
    final = rule["onExitCodes"]["values"]
    assert final == [SpecError.exit_code, SweepError.exit_code]
    assert EnvironmentUnusable.exit_code not in final  # the head may not have started yet
    assert evicted["action"] == "Ignore"


def test_mounted_objects_are_in_the_manifest_or_the_docs() -> None:
    docs = (ROOT / "docs" / "cluster.md").read_text()
    made = {("Secret", n) for n in re.findall(r"create secret generic ([\w-]+)", docs)}
    made |= {("ConfigMap", n) for n in re.findall(r"create configmap ([\w-]+)", docs)}
    assert _wanted() <= made | set(MANIFEST)


def _wanted() -> set[tuple[str, str]]:
    wanted = set()
    for pod in (template["spec"] for template in TEMPLATES.values()):
        for volume in pod["volumes"]:
            if "secret" in volume:
                wanted.add(("Secret", volume["secret"]["secretName"]))
            if "configMap" in volume:
                wanted.add(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                wanted.add(("PersistentVolumeClaim", claim))
        for source in _container(pod)["envFrom"]:
            for kind, reference in source.items():
                wanted.add(
                    ({"secretRef": "Secret", "configMapRef": "ConfigMap"}[kind], reference["name"])
                )
    return wanted


def test_ray_up_sets_the_environment_of_compose(tmp_path: Path) -> None:
    """Test the environment that a shell reads from the setup command's file."""
    (write,) = (command for command in RAY_UP["setup_commands"] if "aae-env" in command)
    script = f"{write}; . ~/aae-env; env -0"
    home = tmp_path / "a home"
    home.mkdir()
    done = subprocess.run(
        ["bash", "-c", script],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    token = f"{home}/.ray/auth_token"
    wanted = COMPOSE["x-ray"]["environment"] | {"RAY_AUTH_TOKEN_PATH": token}
    assert wanted.items() <= found.items()
    assert found["RAY_enable_autoscaler_v2"] == "0"  # version 2 would start one worker too few
    assert found["PATH"] == f"{home}/aae-venv/bin:/usr/bin:/bin"
    assert RAY_UP["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
