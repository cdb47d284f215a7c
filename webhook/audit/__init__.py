"""Decisions kept: on local disk before they are told, in a database soon after."""
