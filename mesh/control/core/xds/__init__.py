"""From a snapshot to xDS resources. Only messages are made here; nothing is sent."""
