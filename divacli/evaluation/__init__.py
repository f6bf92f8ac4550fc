"""Learners and rivals: was a decision any good on images that nobody has seen?"""
