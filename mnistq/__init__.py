"""The rooms of the helper module, one a lesson; mnistq_helpers lists what they hold."""
