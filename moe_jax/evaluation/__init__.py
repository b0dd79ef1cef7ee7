"""What is done with a finished checkpoint. Imports everything below it but plan and report; training never imports it.

- loading: a run's model, parameters and config from its folder, on whatever devices are here
- huggingface/: models of transformers, written and read
- run_store: the store of a run, or another with its vocabulary
- without_dropping: a run restored so that no token is dropped
- generation: tokens drawn one after the other
- text_stream: tokens as text while they come
- routing: which experts the tokens of held-out windows choose
- tasks/: downstream tasks, scored by log-likelihood
- harness: a run's model as a model of lm-evaluation-harness
- on_store: the loss of a run's newest checkpoint on the held-out part of a token store
"""
