"""Signed models: manifest, Sigstore bundle, lineage, policy, and loading only what was verified."""
