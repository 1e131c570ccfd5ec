"""ACME on the services port: accounts bound to credentials, orders for stated names."""
