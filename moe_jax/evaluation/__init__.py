"""What is done with a finished checkpoint. Imports everything below it but plan and report; training never imports it.

- loading: a run's model, parameters and config from its folder, on whatever devices are here
- huggingface/: models of transformers, written and read
- on_store: the loss of a run's newest checkpoint on the held-out part of a token store
"""
