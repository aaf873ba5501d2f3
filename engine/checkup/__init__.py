"""Whether a model is computed rightly on this machine, and how fast: what `ds4-agent doctor
--model` reports. In: a checkpoint directory. Out: findings, each a verdict and a sentence."""
