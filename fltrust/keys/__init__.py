"""The `Signer` port and keys in files: private keys stay behind it."""
