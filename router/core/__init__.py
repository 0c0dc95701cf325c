"""What the router decides, without a socket, a file or a clock of its own."""
