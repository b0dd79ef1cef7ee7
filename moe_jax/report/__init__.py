"""Pages and figures: the report of a sweep, and papers reproduced. Made from files alone, without a model.

May import the ground, config, sweep and laws. laws starts JAX, so a sweep's page imports it only where there is a law.

Facts
  findings       what a grid of losses shows, counted and in sentences
  capacity       what dropping costs on the held-out windows
  downstream     tasks beside the loss, and what sparsity does to them at equal loss
  predictions    prediction.csv compared with measured losses
  law_check      law.json compared with a sweep's runs
  reading        a sweep's files -> all that its page shows
  sections/      the facts of each section of the page
Figures
  panels         style, colours, ticks and legends of all figures
  routing_figure loads of the experts of an inspected run
  loss_curves    training losses over tokens
  figures        losses against N, D, G; the fit; predictions
  drawing        a figure saved as PNG and embedded as SVG
Pages
  elements       tables, sentences and figures as values
  formula        formulas and Greek letters
  render         templates -> HTML
  page           the page of a sweep
  templates/     the pages' layout and style
  papers/        papers reproduced, one module each
"""
