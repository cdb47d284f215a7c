"""Configuration, the modes of the rules, exemptions."""
