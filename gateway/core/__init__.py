"""What the gateway decides: pure logic, no sockets."""
