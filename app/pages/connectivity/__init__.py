"""Mode connectivity: a barrier between two networks, and a way around it."""
