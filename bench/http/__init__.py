"""The HTTP benchmark: cases, a runner over all servers, results and their report."""
