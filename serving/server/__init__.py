"""The embedded server: models over REST and gRPC as TensorFlow Serving offers them."""
