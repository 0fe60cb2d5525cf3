"""Loss Atlas: scikit-learn-style estimators of the loss landscape of image classifiers."""
