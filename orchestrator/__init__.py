"""The domain: state machines, rules, operations, persistence, settings. No Kafka, no HTTP."""
