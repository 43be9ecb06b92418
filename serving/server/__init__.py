"""The embedded server: models over REST and gRPC as TensorFlow Serving offers them."""

__all__ = ["app", "config", "errors", "options", "request_log", "signatures"]
