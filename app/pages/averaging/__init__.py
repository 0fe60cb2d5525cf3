"""Weight averaging: what SWA, EMA and soups do."""
