"""What a Trainer says of the precision that its model computes with."""

from __future__ import annotations

import json

from tfx.dsl.io import fileio
from tfx.utils import io_utils


def precision_remark(provenance_file: str) -> str:
    """A sentence about what a lower precision gained where the model was made; "" for a model in float32."""
    provenance = json.loads(io_utils.read_string_file(provenance_file)) if fileio.exists(provenance_file) else {}
    gain = provenance.get("time_of_float32")
    if not gain:
        return ""
    shares = ", ".join(f"{share:.2f} at batch {batch}" for batch, share in gain.items())
    remark = f"{provenance['precision']}: the network takes {shares} of its time in float32"
    if min(gain.values()) >= 1:
        remark += ", so nothing is gained on this machine; it is for CPUs with AVX512-BF16 or AMX"
    return remark
