"""What unit tests, contract tests and the bench of the reachability oracle share: worlds, their wires, probes."""
