"""Serving: the model base path, the signatures, the embedded server and its clients. No TFX in here."""
