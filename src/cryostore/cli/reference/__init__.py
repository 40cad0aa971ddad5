"""Verbs that print references: manual pages, completion, OpenAPI, the SDK model."""
