"""Everything of an inference node that talks to something: engines, providers, files."""
