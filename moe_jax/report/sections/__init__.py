"""The facts of each section of a sweep's page; templates/sweep.html lays them out, in this order.

summary: the numbers and sentences at the top · runs: the setup, and a table of every run · losses: the grid of losses ·
domains: losses on other stores · tasks: downstream scores · granularity: the effect of G, and dropping · law:
coefficients and errors · predictions: predicted beside measured · routing: which experts tokens choose"""
