"""Measuring: accuracy, latency, and both against other engines (installed as `semisparse.eval`)."""
