"""REST/JSON on the services port: what operators and registries call, over the same session as gRPC."""
