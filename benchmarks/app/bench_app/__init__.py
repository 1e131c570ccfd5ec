"""A model of a stated size that nobody trains: what a round costs, and nothing else."""
