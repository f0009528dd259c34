"""Writing image sets: the shard contract, what applies and what renders."""
