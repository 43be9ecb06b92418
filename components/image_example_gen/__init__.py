"""Read photos from class folders or a list of them."""

__all__ = ["component", "examples", "file_formats", "image_files"]
