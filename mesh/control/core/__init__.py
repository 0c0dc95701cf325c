"""Pure logic: no gRPC calls, no files, no clock of its own."""
