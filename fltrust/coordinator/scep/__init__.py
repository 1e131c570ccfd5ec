"""SCEP on the public port, where an operator switched it on."""
