"""Gates for model registries: nothing gets in or out that was not verified."""
