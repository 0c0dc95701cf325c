"""Pure logic of an inference node: no grpc, no environment, no torch."""
