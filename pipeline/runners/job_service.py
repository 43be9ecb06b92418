"""The job service of Beam's PortableRunner, asked before a pipeline starts."""

from __future__ import annotations

from collections.abc import Sequence

from components.errors import BrokenInput

_PORTABLE_RUNNER = "PortableRunner"
# Beam starts a job service of its own.
_EMBEDDED = "embed"


def require_job_service(arguments: Sequence[str], seconds: float = 5) -> None:
    """Connect to the job service once, which costs milliseconds; Beam itself ends in a trace after a minute.

    Args:
        arguments: Beam's pipeline options, see pipeline.options.BeamOptions; without PortableRunner and an endpoint
            nothing is asked.
        seconds: how long the service has to answer.

    Raises:
        BrokenInput: no job service answers there.
    """
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    endpoint = options.get("--job_endpoint", _EMBEDDED)
    if options.get("--runner") != _PORTABLE_RUNNER or endpoint == _EMBEDDED:
        return
    import grpc

    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
        except grpc.FutureTimeoutError as error:
            raise BrokenInput(
                f"beam.options.job_endpoint is {endpoint!r}, where no Beam job service answers within {seconds:g} s; "
                "start one (`python -m apache_beam.runners.portability.local_job_service_main --port PORT`), or name "
                "another"
            ) from error
