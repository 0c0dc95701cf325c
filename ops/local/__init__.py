"""A mesh on this machine: what its processes are, and the supervisor that keeps them running."""
