"""The commands, one a module: `add` describes it to the parser, `run` does it."""
