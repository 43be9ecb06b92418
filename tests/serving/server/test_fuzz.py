"""A short, always equal part of `make fuzz`."""

from __future__ import annotations

import requests

from benchmarks.serving.fuzz import fuzz_round, fuzz_server


def test_the_server_answers_whatever_comes_in_the_documented_form(base_paths):
    with fuzz_server(base_paths) as server:
        fuzz_round(server, number=1, examples=250)

        answer = requests.get(f"http://127.0.0.1:{server.rest_port}/v1/models/half_plus_two", timeout=30)
        assert answer.json()["model_version_status"][0]["state"] == "AVAILABLE"
