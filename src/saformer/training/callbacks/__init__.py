"""What a training does besides its steps: checkpoints, results, energy, figures, exact resume."""
