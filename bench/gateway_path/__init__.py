"""The parts of the gateway benchmark: load, a static upstream, the mesh and its peers."""
