"""What the providers' HTTP interfaces say, in the contract's terms and back; no I/O."""
