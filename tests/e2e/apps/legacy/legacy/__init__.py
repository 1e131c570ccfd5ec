"""An app in the manner of earlier Flower, for end-to-end tests."""
