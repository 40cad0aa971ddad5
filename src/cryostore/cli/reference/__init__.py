"""Commands that print references: manual pages, shell completion, OpenAPI, the SDK model."""
