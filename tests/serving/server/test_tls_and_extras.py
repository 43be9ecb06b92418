"""What flags switch on: encrypted ports, health and reflection services, the access log."""

from __future__ import annotations

import dataclasses
import datetime
import ipaddress
import json
import ssl
from pathlib import Path

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc

from serving.server.app import EmbeddedServer
from serving.server.config import ConfigFileError
from serving.server.options import TlsError, TlsFiles
from tests.serving.server.conftest import QUICK_OPTIONS, Rest

STATUS = "/v1/models/half_plus_two"


def options(**more):
    return dataclasses.replace(QUICK_OPTIONS, **more)


@pytest.fixture(scope="module")
def one_model(base_paths: dict[str, str]) -> dict[str, str]:
    return {"half_plus_two": base_paths["half_plus_two"]}


# TLS.


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, and server.pem, client.pem of it with their keys; stranger.pem is its own authority."""
    folder = tmp_path_factory.mktemp("pems")
    ca_key, ca = certificate("ca", None, None)
    stranger_key, stranger = certificate("stranger", None, None)
    files = {"ca": (ca_key, ca), "stranger": (stranger_key, stranger)}
    files |= {name: certificate(name, ca, ca_key) for name in ("server", "client")}
    for name, (key, signed) in files.items():
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)
    return folder


def certificate(name, issuer, issuer_key):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer_key is not None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
        builder = builder.add_extension(authority, critical=False)
    return key, builder.sign(issuer_key or key, hashes.SHA256())


def rest_status(server, pems, client=None):
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(pems / "ca.pem")
        session.cert = (str(pems / f"{client}.pem"), str(pems / f"{client}.key")) if client else None
        answer = session.get(f"https://127.0.0.1:{server.rest_port}{STATUS}", timeout=30)
    return answer.json()["model_version_status"][0]["state"]


def grpc_status(server, pems, client=None):
    pair = [(pems / f"{client}.key").read_bytes(), (pems / f"{client}.pem").read_bytes()] if client else [None, None]
    credentials = grpc.ssl_channel_credentials((pems / "ca.pem").read_bytes(), *pair)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half_plus_two"
    with grpc.secure_channel(f"127.0.0.1:{server.grpc_port}", credentials) as channel:
        (version,) = (
            model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=10).model_version_status
        )
    return version.State.Name(version.state)


def test_with_a_certificate_both_ports_are_encrypted(one_model, pems):
    tls = TlsFiles(str(pems / "server.pem"), str(pems / "server.key"))
    with EmbeddedServer(one_model, options(tls=tls)) as server:
        assert rest_status(server, pems) == "AVAILABLE"
        assert grpc_status(server, pems) == "AVAILABLE"
        with pytest.raises(requests.ConnectionError):
            Rest(server.rest_port).call("GET", STATUS)


def test_with_a_client_authority_both_ports_let_in_its_clients_only(one_model, pems):
    tls = TlsFiles(str(pems / "server.pem"), str(pems / "server.key"), str(pems / "ca.pem"))
    with EmbeddedServer(one_model, options(tls=tls)) as server:
        assert rest_status(server, pems, "client") == "AVAILABLE"
        assert grpc_status(server, pems, "client") == "AVAILABLE"
        for client in (None, "stranger"):
            with pytest.raises((requests.ConnectionError, ssl.SSLError)):
                rest_status(server, pems, client)
            with pytest.raises(grpc.RpcError) as caught:
                grpc_status(server, pems, client)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("certificate_file", "key", "client_ca"),
    [("missing.pem", "server.key", ""), ("server.pem", "client.key", ""), ("server.pem", "server.key", "server.key")],
)
def test_tls_files_that_cannot_be_used_are_named(pems, certificate_file, key, client_ca):
    files = TlsFiles(str(pems / certificate_file), str(pems / key), str(pems / client_ca) if client_ca else "")

    with pytest.raises(TlsError) as caught:
        files.ssl_context()

    assert certificate_file in str(caught.value)


# Health and reflection.


@pytest.fixture(scope="module")
def extras(one_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "access.jsonl"
    wanted = options(grpc_health=True, grpc_reflection=True, access_log=str(log))
    with EmbeddedServer(one_model, wanted) as server, grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield server, channel, log


@pytest.mark.parametrize("service", ["", "ModelService", "PredictionService"])
def test_the_health_service_knows_tensorflow_serving_s_names(extras, service):
    answer = health_pb2_grpc.HealthStub(extras[1]).Check(health_pb2.HealthCheckRequest(service=service), timeout=10)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_health_of_another_name_is_not_found(extras):
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(extras[1]).Check(health_pb2.HealthCheckRequest(service="zzz"), timeout=10)

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_without_the_option_there_is_no_health_service(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel, pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def reflected(channel, **question):
    request = reflection_pb2.ServerReflectionRequest(**question)
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    return next(stub.ServerReflectionInfo(iter([request]), timeout=10))


def test_reflection_lists_the_services_and_describes_their_methods(extras):
    listed = reflected(extras[1], list_services="").list_services_response.service
    assert {service.name for service in listed} >= {
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
        "grpc.health.v1.Health",
    }

    answer = reflected(extras[1], file_containing_symbol="tensorflow.serving.PredictionService")
    file = descriptor_pb2.FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])
    (service,) = file.service
    assert {method.name: method.input_type for method in service.method} == {
        "Classify": ".tensorflow.serving.ClassificationRequest",
        "Regress": ".tensorflow.serving.RegressionRequest",
        "Predict": ".tensorflow.serving.PredictRequest",
        "MultiInference": ".tensorflow.serving.MultiInferenceRequest",
        "GetModelMetadata": ".tensorflow.serving.GetModelMetadataRequest",
    }


# The access log.


def test_the_access_log_has_a_line_of_json_for_each_request(extras):
    server, channel, log = extras
    rest = Rest(server.rest_port)
    before = len(log.read_text().splitlines())
    rest.predict("half_plus_two", {"instances": [1.0]})
    rest.predict("a%22%0A", {"instances": [1.0]})
    rest.call("GET", "/v1/nonsense")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half_plus_two"
    model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, timeout=10)

    lines = [json.loads(line) for line in log.read_text().splitlines()[before:]]

    kept = [(line["entrypoint"], line["method"], line["model"], line["code"]) for line in lines]
    assert kept == [
        ("REST", "Predict", "half_plus_two", "OK"),
        ("REST", "Predict", 'a"\n', "NOT_FOUND"),
        ("REST", "", "", "INVALID_ARGUMENT"),
        ("GRPC", "GetModelStatus", "half_plus_two", "OK"),
    ]
    assert lines[0]["request_bytes"] == len('{"instances": [1.0]}')
    assert lines[0]["response_bytes"] == len('{\n    "predictions": [2.5\n    ]\n}')
    assert lines[0]["peer"] == "127.0.0.1"
    assert lines[0]["milliseconds"] > 0
    assert datetime.datetime.fromisoformat(lines[0]["time"]).tzinfo is not None


def test_an_access_log_that_cannot_be_opened_is_named(one_model, tmp_path):
    with (
        pytest.raises(ConfigFileError, match="cannot be opened: Is a directory"),
        EmbeddedServer(one_model, options(access_log=str(tmp_path))),
    ):
        pass
