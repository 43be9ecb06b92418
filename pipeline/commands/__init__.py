"""The commands of `ingraph`, each imported when it is used."""

__all__ = ["c_runtime"]
