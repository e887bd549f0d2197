"""Language models that run here: masked and causal ones, of any family."""
