"""Files of this machine that a run on a cluster needs."""

from __future__ import annotations

from dataclasses import dataclass

from components.errors import BrokenInput


@dataclass(frozen=True)
class StagedFile:
    """A file, or a folder with everything in it, and where the cluster finds it.

    Attributes:
        local: where it is here.
        remote: where the compiled pipeline says it is; the name changes with the content.
    """

    local: str
    remote: str

    def copy(self) -> None:
        """Copy it where it is not there yet.

        Raises:
            BrokenInput: the place cannot be written to.
        """
        import tensorflow as tf
        from tfx.dsl.io import fileio

        try:
            for local, remote in self._files():
                if not fileio.exists(remote):
                    fileio.makedirs(remote.rpartition("/")[0])
                    # Under its name only when it is whole: another run takes what is there.
                    fileio.copy(local, f"{remote}.part", overwrite=True)
                    fileio.rename(f"{remote}.part", remote, overwrite=True)
        except (OSError, tf.errors.OpError) as error:
            raise BrokenInput(
                f"{self.remote}: {self.local} cannot be copied there: {str(error).splitlines()[0]}; "
                "cluster.pipeline_root in the config says where data go"
            ) from error

    def _files(self) -> list[tuple[str, str]]:
        from tfx.dsl.io import fileio

        if not fileio.isdir(self.local):
            return [(self.local, self.remote)]
        found = []
        for folder, _, names in fileio.walk(self.local):
            below = folder.removeprefix(self.local).strip("/")
            found += [(f"{folder}/{name}", "/".join(filter(None, [self.remote, below, name]))) for name in names]
        return found
