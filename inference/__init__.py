"""The inference node: one model, or one provider, behind one contract."""
