"""Clients of TensorFlow Serving and of `ingraph serve`, over REST and gRPC, without TensorFlow."""
