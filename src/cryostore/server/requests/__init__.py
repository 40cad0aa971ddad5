"""The path of a request through the server: signature, memory for its body, operation, answer."""
