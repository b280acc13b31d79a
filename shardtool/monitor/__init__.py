"""What monitoring is told of a node: metrics, runs, a plugin's status. Pure functions of facts."""
