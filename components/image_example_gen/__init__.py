"""Read photos from class folders or a list of them."""
