"""Generated protobuf, and the codecs between it and the domain types; errors and frames."""
