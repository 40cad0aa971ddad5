"""Documents made from the declarations: API coverage, OpenAPI, the SDK model."""
