// The documentation.
