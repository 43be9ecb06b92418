"""Which Beam runner the Beam steps use."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

from components.errors import BrokenInput

IN_MEMORY_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
# TFX builds a wheel of itself for remote workers before each step, 2 s a time, unless an image is named.
NO_IMAGE = "unused"
_IMAGE_OPTION = "sdk_container_image"

OptionValue = str | int | float | bool


class BeamOptions(BaseModel):
    """Beam's runner and its options.

    Attributes:
        runner: as Beam names it (`DataflowRunner`, `FlinkRunner`, `SparkRunner`, `PortableRunner`), or a class by its
            dotted path. The default runs in the step's own process; Beam's `DirectRunner` would look for a binary on
            the network first.
        options: Beam's pipeline options without the dashes: `{project: my-project, num_workers: 4}`; a list repeats
            the option, `true` sets a flag.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runner: str = IN_MEMORY_RUNNER
    options: dict[str, OptionValue | list[OptionValue]] = {}

    @model_validator(mode="after")
    def _check(self) -> BeamOptions:
        for name in self.options:
            if name.startswith("-") or name == "runner":
                raise ValueError(f"options: {name!r}: give names without dashes, and the runner as `beam.runner`")
        return self

    def pipeline_args(self, image: str | None = None) -> list[str]:
        """Command-line arguments, as TFX's `beam_pipeline_args` takes them.

        Args:
            image: what remote workers run, where the options name none: our DoFns import this project.

        Raises:
            BrokenInput: workers are containers, and no image is given.
        """
        if self._workers_are_containers() and not image and _IMAGE_OPTION not in self.options:
            raise BrokenInput(
                f"beam.runner is {self.runner}, whose workers are containers that must hold ingraph: "
                "`--set cluster.image=REGISTRY/ingraph:TAG` gives them the image of deploy/image/Dockerfile"
            )
        options = dict(self.options)
        if _IMAGE_OPTION not in options:
            options[_IMAGE_OPTION] = NO_IMAGE if self.runner == IN_MEMORY_RUNNER else (image or NO_IMAGE)
        arguments = [f"--runner={self.runner}"]
        for name, value in options.items():
            for each in value if isinstance(value, list) else [value]:
                if each is not False:
                    arguments.append(f"--{name}" if each is True else f"--{name}={each}")
        return arguments

    def _workers_are_containers(self) -> bool:
        environment = self.options.get("environment_type", "DOCKER")  # Beam's default
        return self.runner == "DataflowRunner" or (self.runner == "PortableRunner" and environment == "DOCKER")
