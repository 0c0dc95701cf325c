"""Pure: no gRPC, no environment."""
