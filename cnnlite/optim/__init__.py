"""Optimizers, one family a file; importing this package registers them all."""

from cnnlite.optim.adam import Adam, AdamW
from cnnlite.optim.base import Optimizer, Rule, optimizers
from cnnlite.optim.composite import Composite, Member
from cnnlite.optim.muon import Muon
from cnnlite.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Composite", "Member", "Muon", "Optimizer", "Rule", "optimizers"]
