"""Critical points, how they are found, and the races of optimisers that leave them."""
