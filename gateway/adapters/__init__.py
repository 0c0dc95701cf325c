"""What the gateway talks to, and who talks to it."""
