"""Steps of the schema, in order; they only go forward."""
