"""The groups of commands that `gatewayd.cli` puts together."""
