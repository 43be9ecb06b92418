"""Which files are photos."""

PHOTO_EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
