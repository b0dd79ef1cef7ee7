"""What is done with a finished checkpoint. Imports everything below it but plan and report; training never imports it.

- loading: a run's model, parameters and config from its folder, on whatever devices are here
- vocabulary: the vocabulary that a run was trained with
- tasks/: downstream tasks, scored by log-likelihood
- harness: a run's model as a model of lm-evaluation-harness
- on_store: the loss of a run's newest checkpoint on the held-out part of a token store
"""
