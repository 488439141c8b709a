"""Optimizers, one family a file; importing this package registers them all."""

from cnnlite.optimizers.adam import Adam, AdamW
from cnnlite.optimizers.base import Optimizer, Rule, optimizers
from cnnlite.optimizers.composite import Composite, Member
from cnnlite.optimizers.muon import Muon
from cnnlite.optimizers.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Composite", "Member", "Muon", "Optimizer", "Rule", "optimizers"]
