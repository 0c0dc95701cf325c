"""An engine without a model: made-up words at a chosen pace, for benchmarks of the mesh and for tests."""
