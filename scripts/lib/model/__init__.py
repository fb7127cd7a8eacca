"""Models: base configs, weights, recipes, inference, Grad-CAM."""
