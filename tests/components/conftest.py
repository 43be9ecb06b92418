from collections.abc import Callable
from pathlib import Path

import pytest
from tfx import types
from tfx.types import artifact_utils

ArtifactMaker = Callable[..., types.Artifact]


@pytest.fixture
def artifact(tmp_path: Path) -> ArtifactMaker:
    """Makes an artifact as TFX's launcher does: with a directory of its own, and of this version of TFX."""

    def make(artifact_type: type[types.Artifact], name: str, splits: tuple[str, ...] = ()) -> types.Artifact:
        made = artifact_type()
        made.uri = str(tmp_path / name)
        Path(made.uri).mkdir(parents=True, exist_ok=True)
        made.set_string_custom_property(artifact_utils.ARTIFACT_TFX_VERSION_CUSTOM_PROPERTY_KEY, "1.21.0")
        if splits:
            made.split_names = artifact_utils.encode_split_names(list(splits))
        return made

    return make
