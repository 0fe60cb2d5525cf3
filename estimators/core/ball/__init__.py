"""What the loss does within a distance of a point: worst case, average case, PAC-Bayes."""
