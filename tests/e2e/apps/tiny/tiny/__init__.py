"""A model of four numbers, for end-to-end tests."""
