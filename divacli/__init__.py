"""divacli: closed-form dataset derivatives for people who train image classifiers."""

__version__ = "0.1.0"
