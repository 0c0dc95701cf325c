"""The operator's `headrace` command: a client of the mesh like any other. It imports contracts and plumbing only."""
