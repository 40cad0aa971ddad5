"""Coordination of the processes on one store: claims on background work, reports of nodes, the collection epoch."""
