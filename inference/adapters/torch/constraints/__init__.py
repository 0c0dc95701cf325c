"""Constrained decoding with xgrammar: compiling, keeping and stepping grammars. See inference.core.constraints."""
