"""Training through other libraries, each in the one module that imports it."""
