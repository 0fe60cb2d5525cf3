"""Texts of the report that ``loss-atlas demo`` writes."""

EN = {
    "title": "The loss landscape of test_resnet on digits",
    "made": "Made by Loss Atlas in {seconds:.0f} s.",
    # said in the terminal
    "step.train": "training test_resnet on digits, seed {seed}",
    "step.sharpness": "measuring sharpness",
    "step.surface": "mapping the surface",
    "step.path": "connecting the two networks",
    "step.average": "averaging weights",
    # in the report
    "seed": "seed {seed}",
    "train_loss": "training loss",
    "held_out_loss": "held-out loss",
    "held_out_accuracy": "held-out accuracy",
    "networks": "Two networks",
    "networks.about": "Same architecture and data, different seeds.",
    "sharpness": "How sharp are they?",
    "sharpness.about": "Largest loss rise found within a ball of radius ρ (a lower bound on the maximum; in brackets how far "
    "below it the second-best start ended), mean rise under noise with its standard error, largest Hessian eigenvalue with its "
    "residual, trace with its standard error.",
    "worst": "worst rise",
    "average": "average rise",
    "lambda_max": "λ_max",
    "residual": "{value} (residual {residual})",
    "trace": "trace",
    "surface": "What does the surface around it look like?",
    "surface.about": "Two random filter-normalised directions through seed 0 (Li et al. 2018); {points} of {all} points "
    "evaluated, the rest interpolated with an estimated error of at most {error:.1%} of the range of log-loss.",
    "path": "How are they joined?",
    "path.about": "Straight barrier {straight:.3f} nats, trained Bézier curve {curve:.3f} nats (Garipov et al. 2018; barrier as "
    "in Entezari et al. 2022).",
    "swa": "What does averaging do?",
    "swa.about": "Stochastic weight averaging over the last quarter of training, beside the last iterate (Izmailov et al. "
    "2018). One seed: no claim about the method.",
}
