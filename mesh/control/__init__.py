"""The xDS control plane: sources of endpoints in, one immutable snapshot out."""
