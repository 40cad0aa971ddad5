"""The load generator: plans of signed requests, a process that sends them, payloads and response parsing."""
