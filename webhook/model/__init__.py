"""Values and the decision: no I/O, no clock, no globals."""
