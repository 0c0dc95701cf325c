"""What the router talks to: inference nodes, the control plane's snapshot, its peers, its files."""
