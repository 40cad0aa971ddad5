"""Coordination of the processes on one store: claims, nodes, the collection's epoch."""
