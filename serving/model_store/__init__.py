"""The model base path: where TensorFlow Serving finds the versions of one model.

    version = publish("models/heart", "path/to/saved_model", {"data_fingerprint": "…", "code_fingerprint": "…"})
    withdraw("models/heart", reason="wrong on new patients")

A version becomes visible complete or not at all. docs/model-store.md says which guarantee holds where.
"""

from serving.model_store.base import (
    PROVENANCE_FILE,
    ModelStoreError,
    ModelVersion,
    WithdrawnModelError,
    check_provenance,
    decode_json,
    fingerprints,
    parse_version_number,
)
from serving.model_store.operations import (
    ConfiguredModel,
    label,
    labels,
    list_versions,
    model_server_config,
    promote,
    prune,
    publish,
    restore,
    served_version,
    unlabel,
    verify,
    verify_signature,
    withdraw,
)
from serving.model_store.signing import (
    KEY_VARIABLE,
    PublicKey,
    SignatureError,
    SigningKey,
    make_key,
    read_public_key,
    read_signing_key,
    signing_key_of_environment,
)

__all__ = [
    "KEY_VARIABLE",
    "PROVENANCE_FILE",
    "ConfiguredModel",
    "ModelStoreError",
    "ModelVersion",
    "PublicKey",
    "SignatureError",
    "SigningKey",
    "WithdrawnModelError",
    "check_provenance",
    "decode_json",
    "fingerprints",
    "label",
    "labels",
    "list_versions",
    "make_key",
    "model_server_config",
    "parse_version_number",
    "promote",
    "prune",
    "publish",
    "read_public_key",
    "read_signing_key",
    "restore",
    "served_version",
    "signing_key_of_environment",
    "unlabel",
    "verify",
    "verify_signature",
    "withdraw",
]
