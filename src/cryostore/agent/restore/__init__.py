"""A restore run: the target, file writers, links, attributes, and removal."""
