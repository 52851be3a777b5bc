"""The small models that the devnet ships, and the programs that trained them."""
