"""What lies in deploy/: the config files are read by the embedded server, the manifests by their schemas."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import numpy as np
import pytest
import requests
import yaml

from components.serving_check.model_server import write_warmup_requests
from serving.server.app import EmbeddedServer
from serving.server.config import read_batching_parameters, read_metrics_path
from serving.server.models import read_model_config_file
from serving.server.options import ServerOptions
from tests.browser import small_classifiers
from tests.serving.server import small_models

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES_VERSION = "1.30"
MODELS = ["heart", "reviews", "digits"]
CONFIG_FILES = ["models.config", "batching.config", "monitoring.config"]


def manifest(name):
    return yaml.safe_load((DEPLOY / name).read_text())


def serving_container():
    (container,) = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return container


def test_the_model_config_lists_the_demo_models_with_stable_and_canary():
    configs = read_model_config_file(str(DEPLOY / "models.config"))

    assert [config.name for config in configs] == MODELS
    for config in configs:
        assert config.base_path == f"/models/{config.name}"
        assert config.policy.latest == 2
        assert config.labels == {"stable": 1, "canary": 1}


def test_the_embedded_server_serves_with_the_three_config_files(tmp_path):
    for name in MODELS:
        small_models.save_half_plus_two(tmp_path / name / "1")
    text = (DEPLOY / "models.config").read_text()
    config = tmp_path / "models.config"
    config.write_text(text.replace('"/models/', f'"{tmp_path}/'))
    options = ServerOptions(
        rest_port=0,
        grpc_port=0,
        model_config_file=str(config),
        labels_may_wait=True,
        batching=read_batching_parameters(str(DEPLOY / "batching.config")),
        metrics_path=read_metrics_path(str(DEPLOY / "monitoring.config")),
    )

    with EmbeddedServer({}, options) as server, requests.Session() as session:
        session.trust_env = False
        address = f"http://127.0.0.1:{server.rest_port}"
        for name in MODELS:
            for label in ("stable", "canary"):
                path = f"{address}/v1/models/{name}/labels/{label}:predict"
                assert session.post(path, json={"instances": [1.0]}, timeout=30).json() == {"predictions": [2.5]}
        metrics = session.get(f"{address}/monitoring/prometheus/metrics", timeout=30).text
        assert ':tensorflow:serving:request_count{model_name="digits",status="OK"} 2' in metrics


def test_the_largest_allowed_batch_is_the_largest_batch():
    parameters = read_batching_parameters(str(DEPLOY / "batching.config"))

    assert parameters.max_batch_size == 32
    assert list(parameters.allowed_batch_sizes) == [1, 2, 4, 8, 16, 32]


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_manifest_is_valid_for_kubernetes(path):
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), KUBERNETES_VERSION, strict=True)


def test_a_manifest_with_a_misspelt_field_would_be_refused():
    broken = manifest("kubernetes/deployment.yaml")
    broken["spec"]["replica"] = 2

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES_VERSION, strict=True)


def test_the_compose_file_is_valid():
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    checked = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_kustomize_knows_every_manifest_and_every_config_file():
    kustomization = manifest("kustomization.yaml")

    assert sorted(kustomization["resources"]) == sorted(
        f"kubernetes/{path.name}" for path in (DEPLOY / "kubernetes").glob("*.yaml")
    )
    (generator,) = kustomization["configMapGenerator"]
    assert generator["files"] == CONFIG_FILES
    volumes = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["volumes"]
    assert generator["name"] in [volume.get("configMap", {}).get("name") for volume in volumes]


def test_both_ways_start_the_same_server_with_files_that_are_mounted():
    service = manifest("compose.yaml")["services"]["serving"]
    container = serving_container()

    assert container["image"] == service["image"]
    assert container["args"] == service["command"]
    files = [argument.partition("=")[2] for argument in container["args"] if "_file=" in argument]
    assert files == [f"/etc/serving/{name}" for name in CONFIG_FILES]
    assert {f"./{name}:/etc/serving/{name}:ro" for name in CONFIG_FILES} < set(service["volumes"])
    assert "/etc/serving" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_no_server_runs_as_root_or_writes_anywhere():
    pod = manifest("kubernetes/deployment.yaml")["spec"]["template"]["spec"]
    service = manifest("compose.yaml")["services"]["serving"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert serving_container()["securityContext"]["readOnlyRootFilesystem"]
    assert serving_container()["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert all(mount["readOnly"] for mount in serving_container()["volumeMounts"] if mount["name"] != "tmp")
    assert not service["user"].startswith("0")
    assert service["read_only"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_autoscaler_and_the_service_mean_the_deployment():
    deployment = manifest("kubernetes/deployment.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    service = manifest("kubernetes/service.yaml")

    assert manifest("kubernetes/autoscaler.yaml")["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert service["spec"]["selector"].items() <= labels.items()
    named = {port["name"]: port["containerPort"] for port in serving_container()["ports"]}
    assert {port["port"]: named[port["targetPort"]] for port in service["spec"]["ports"]} == {8500: 8500, 8501: 8501}


def test_exports_are_compared_row_by_row_and_a_label_that_differs_is_named(tmp_path):
    check_exports = runpy.run_path(str(DEPLOY / "check_exports.py"))
    base_path = Path(small_classifiers.publish_patients(tmp_path / "patients"))
    saved = check_exports["largest_version"](base_path)
    columns = small_classifiers.PATIENTS
    write_warmup_requests(str(saved), [("serving_default", columns), ("classify", columns)])
    received = dict(check_exports["answers"](saved))
    assert received["0/serving_default/output_0"].tolist() == [b"disease", b"healthy"]
    assert check_exports["decisions"](received) == 2
    np.testing.assert_allclose(
        received["1/explain/base"] + received["1/explain/contributions"].sum(axis=1),
        received["1/explain/probability"],
        atol=1e-5,
    )
    other = received | {"0/serving_default/output_0": np.array([b"disease", b"disease"], object)}
    assert check_exports["differences"](received, received) == []
    assert check_exports["differences"](received, other) == ["0/serving_default/output_0"]
