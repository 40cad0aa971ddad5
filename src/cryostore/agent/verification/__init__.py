"""Whether recovery points can be restored, and how current they are."""
