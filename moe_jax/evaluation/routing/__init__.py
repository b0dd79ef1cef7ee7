"""Which experts the tokens of held-out windows choose, with a run's newest checkpoint and with its first parameters.

observation  the choices of every layer, batch by batch
tally        choices counted: loads, pairs of experts, tokens of each expert
summary      counts -> what routing.json says of a layer
inspection   the routing of a run
"""
