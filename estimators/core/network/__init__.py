"""One network as a function of a flat vector θ: moving it, folding it, evaluating and differentiating it."""
