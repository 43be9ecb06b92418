"""Read photos from class folders or a list of them."""

__all__ = ["component", "image_files"]
